"""What LiteRT's kernels take: measured on one x86 core, XNNPACK delegate on, best of many.

Each figure is the time of one case by its multiplications (or elements): 3x3 convolution 56x56x64
to 64, depthwise 3x3 56x56x128, fully connected 64x1024 by 1024x1024, batched product 8x64x64x64,
element-wise operators and QUANTIZE on 200,000 elements. int16 runs in the builtin kernels, which
have no fast convolution: 92 ms where int8 takes 0.53 ms and float32 2.21 ms.
"""

from __future__ import annotations

from fxquant.quant.costs import CostTable

COSTS = CostTable(
    {
        "convolution": {"float32": 19.1, "int8": 4.6, "dynamic": 4.7, "int16": 796.0},
        "depthwise": {"float32": 43.0, "int8": 54.0, "dynamic": 199.0, "int16": 3045.0},
        "linear": {"float32": 19.5, "int8": 4.9, "dynamic": 4.6, "int16": 13.0},
        # No int16 figure: that of the builtin int8 kernel.
        "matmul": {"float32": 21.9, "int8": 18.6, "int16": 172.0},
        "elementwise": {"float32": 190.0, "int8": 140.0, "int16": 1450.0},
        "conversion": {"float32": 60.0, "int8": 60.0, "int16": 60.0},
    },
    "LiteRT on one x86 core, one thread",
)
"""Picoseconds a multiplication, or an element."""
