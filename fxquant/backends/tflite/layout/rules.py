"""The operators that can work in more than one layout, and what changes with it.

    "concatenation"  all values alike, {axis} names another place
    "mean"           {axis} names other places; without keep_dims the rest keeps its order
    "reshape"        free where dimensions that merge or split stay together

What has no rule (convolutions, pooling, resizing, …) works in one layout, the one it is written in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .attributes import Change, bits_of, each_of, place_of, places_of, turned
from .axes import (
    Axes,
    Site,
    added,
    batch_matmul,
    broadcast,
    fully_connected,
    gathered,
    last_stays,
    reduced,
    regrouped,
    same,
    shrunk,
    without,
)


@dataclass(frozen=True)
class Rule:
    """How one operator works in other layouts.

    Attributes:
        axes: the axis of each dimension; None for a use that must stay as it is.
        changes: by option, how it is rewritten.
    """

    axes: Callable[[Site], Axes | None]
    changes: Mapping[str, Change] = field(default_factory=dict)


def _all(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_STRIDED = {
    **dict.fromkeys(("begin", "end", "strides"), each_of()),
    **dict.fromkeys(("begin_mask", "end_mask", "shrink_axis_mask"), bits_of()),
}

RULES: Mapping[str, Rule] = {
    **_all("add sub mul div maximum minimum squared_difference pow", Rule(broadcast)),
    **_all("floor_div floor_mod atan2 prelu select_v2", Rule(broadcast)),
    **_all("equal not_equal less less_equal greater greater_equal", Rule(broadcast)),
    **_all("logical_and logical_or logical_not", Rule(broadcast)),
    **_all("relu relu6 relu_n1_to_1 relu_0_to_1 leaky_relu elu gelu", Rule(broadcast)),
    **_all("hard_swish logistic tanh exp log sqrt rsqrt square", Rule(broadcast)),
    **_all("abs neg sign sin cos floor ceil round", Rule(broadcast)),
    **_all("cast quantize dequantize", Rule(broadcast)),
    **_all("softmax log_softmax l2_normalization topk_v2", Rule(last_stays)),
    **_all("local_response_normalization", Rule(last_stays)),
    **_all("mean sum reduce_max reduce_min", Rule(reduced, {"axis": places_of()})),
    **_all("reduce_prod reduce_any reduce_all", Rule(reduced, {"axis": places_of()})),
    **_all("arg_max arg_min", Rule(without("axis"), {"axis": place_of()})),
    **_all("pad padv2 mirror_pad", Rule(same, {"paddings": each_of()})),
    **_all("split split_v cumsum", Rule(same, {"axis": place_of()})),
    "concatenation": Rule(same, {"axis": place_of("values")}),
    "reverse_v2": Rule(same, {"axis": places_of()}),
    "slice": Rule(same, dict.fromkeys(("begin", "size"), each_of())),
    "strided_slice": Rule(shrunk, _STRIDED),
    "tile": Rule(same, {"multiples": each_of()}),
    "broadcast_to": Rule(same, {"shape": each_of("result")}),
    "gather": Rule(gathered, {"axis": place_of()}),
    "pack": Rule(added("values"), {"axis": place_of("result")}),
    "unpack": Rule(without("axis"), {"axis": place_of()}),
    "reshape": Rule(regrouped, {"shape": each_of("result")}),
    "squeeze": Rule(without("squeeze_dims"), {"squeeze_dims": places_of()}),
    "expand_dims": Rule(added("x"), {"axis": place_of("result")}),
    "fully_connected": Rule(fully_connected),
    "batch_matmul": Rule(batch_matmul, {"adj_y": turned("y")}),
}
