"""Every rule: an operator between convolutions computes the same in its new layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx import Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.layout.rules import RULES
from tests.backends.tflite.layout.layout_graphs import LayoutGraph, assigned, run, transposes, whole

Build = Callable[[LayoutGraph, Node], list[Node]]

UNARY = """
    relu relu6 relu_n1_to_1 relu_0_to_1 elu gelu hard_swish logistic tanh exp sqrt square abs neg
    sign sin cos floor ceil round
"""
BINARY = """
    add sub mul maximum minimum squared_difference floor_div floor_mod atan2 pow
"""
COMPARED = "equal not_equal less less_equal greater greater_equal"
REDUCED = "mean sum reduce_max reduce_min reduce_prod"


def _one(name: str, *args: Any, **options: Any) -> Build:
    return lambda g, x: [g.call(getattr(tfl, name), x, *args, **options)]


def _above_zero(g: LayoutGraph, x: Node) -> Node:
    return g.call(tfl.add, x, g.stored("one", torch.ones(1)))


def _positive(name: str) -> Build:
    return lambda g, x: [g.call(getattr(tfl, name), _above_zero(g, x))]


def _with_shifted(name: str) -> Build:
    return lambda g, x: [g.call(getattr(tfl, name), x, _above_zero(g, x))]


def _parts(name: str, count: int, *args: Any, **options: Any) -> Build:
    def build(g: LayoutGraph, x: Node) -> list[Node]:
        several = g.call(getattr(tfl, name), x, *args, **options)
        return [g.part(several, place) for place in range(count)]

    return build


def _bool(g: LayoutGraph, x: Node) -> Node:
    return g.call(tfl.greater, x, g.plain(6, 1, 1))


def _select(g: LayoutGraph, x: Node) -> list[Node]:
    return [g.call(tfl.select_v2, _bool(g, x), x, g.plain(5))]


def _logic(g: LayoutGraph, x: Node) -> list[Node]:
    first, second = _bool(g, x), g.call(tfl.logical_not, _bool(g, x))
    both = g.call(tfl.logical_and, first, second)
    return [g.call(tfl.cast, g.call(tfl.logical_or, both, first), out_data_type="FLOAT32")]


def _logic_reduced(name: str) -> Build:
    return lambda g, x: [g.call(getattr(tfl, name), _bool(g, x), (2, 3))]


def _gather(g: LayoutGraph, x: Node) -> list[Node]:
    indices = g.stored("places", torch.tensor([2, 0, 1, 1], dtype=torch.int32))
    index = g.stored("place", torch.tensor(1, dtype=torch.int32))
    gathered = g.call(tfl.gather, x, indices, axis=1)
    return [gathered, g.call(tfl.gather, x, index, axis=2)]


def _prelu(g: LayoutGraph, x: Node) -> list[Node]:
    return [g.call(tfl.prelu, g.call(tfl.sub, x, g.plain(6, 1, 1)), g.plain(6, 1, 1))]


def _padv2(g: LayoutGraph, x: Node) -> list[Node]:
    pads = ((0, 0), (1, 0), (2, 0), (0, 3))
    return [g.call(tfl.padv2, x, pads, g.stored("edge", torch.tensor(7.0)))]


def _pack(g: LayoutGraph, x: Node) -> list[Node]:
    packed = g.call(tfl.pack, [x, g.call(tfl.neg, x)], axis=2)
    return [packed, g.part(g.call(tfl.unpack, packed, axis=1), 3)]


def _squeezed(g: LayoutGraph, x: Node) -> list[Node]:
    mean = g.call(tfl.mean, x, (2,), keep_dims=True)
    squeezed = g.call(tfl.squeeze, mean, squeeze_dims=(2,))
    return [g.call(tfl.expand_dims, squeezed, 3), g.call(tfl.expand_dims, squeezed, -2)]


def _quantized(g: LayoutGraph, x: Node) -> list[Node]:
    q = g.call(tfl.quantize, x, out=tfl.QType("int8", 0.1, 2))
    return [g.call(tfl.dequantize, q)]


def _products(g: LayoutGraph, x: Node) -> list[Node]:
    turned = g.transpose(x, 0, 1, 3, 2)
    return [g.call(tfl.batch_matmul, x, turned), g.call(tfl.batch_matmul, turned, x, adj_y=False)]


def _linear(g: LayoutGraph, x: Node) -> list[Node]:
    return [g.linear(x, 3), g.linear(g.transpose(x, 0, 2, 3, 1), 3)]


CASES: dict[str, Build] = {
    **{name: _one(name) for name in UNARY.split()},
    **{name: _positive(name) for name in ("log", "rsqrt")},
    **{name: _with_shifted(name) for name in (BINARY + COMPARED).split()},
    "div": _with_shifted("div"),
    **{name: _one(name, (-2, 3), keep_dims=False) for name in REDUCED.split()},
    "leaky_relu": _one("leaky_relu", alpha=0.5),
    "reduce_any": _logic_reduced("reduce_any"),
    "reduce_all": _logic_reduced("reduce_all"),
    **dict.fromkeys(("logical_and", "logical_or", "logical_not", "cast"), _logic),
    "select_v2": _select,
    "softmax": _one("softmax"),
    "log_softmax": _one("log_softmax"),
    "l2_normalization": _one("l2_normalization"),
    "local_response_normalization": _one("local_response_normalization", radius=1),
    "topk_v2": _parts("topk_v2", 2, 3),
    "arg_max": _one("arg_max", 1),
    "arg_min": _one("arg_min", -1),
    "pad": _one("pad", ((0, 0), (1, 2), (0, 3), (4, 0))),
    "padv2": _padv2,
    "mirror_pad": _one("mirror_pad", ((0, 0), (1, 2), (0, 3), (2, 0)), mode="REFLECT"),
    "split": _parts("split", 2, 1, num_splits=2),
    "split_v": _parts("split_v", 3, (1, 3, 2), 1),
    "cumsum": _one("cumsum", 1),
    "concatenation": lambda g, x: [g.call(tfl.concatenation, [x, x], axis=-3)],
    "reverse_v2": _one("reverse_v2", (1, 2)),
    "slice": _one("slice", (0, 1, 2, 0), (1, 3, -1, 4)),
    "strided_slice": _one(
        "strided_slice",
        (0, 3, 0, 1),
        (1, 0, 4, 5),
        (1, 1, 2, 1),
        begin_mask=4,
        end_mask=8,
        shrink_axis_mask=2,
    ),
    "tile": _one("tile", (1, 2, 1, 3)),
    "broadcast_to": _one("broadcast_to", (2, 6, 4, 5)),
    "gather": _gather,
    "prelu": _prelu,
    **dict.fromkeys(("pack", "unpack"), _pack),
    "reshape": _one("reshape", (1, 2, 3, -1)),
    **dict.fromkeys(("squeeze", "expand_dims"), _squeezed),
    **dict.fromkeys(("quantize", "dequantize"), _quantized),
    "fully_connected": _linear,
    "batch_matmul": _products,
}
# These work along the last dimension, or tear the spatial ones apart.
ORDERED = {
    *("softmax", "log_softmax", "l2_normalization", "local_response_normalization", "topk_v2"),
    *("fully_connected", "batch_matmul", "reshape"),
}


def test_every_rule_is_tried() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_rule(name: str) -> None:
    g = LayoutGraph()
    results = CASES[name](g, g.conv(g.entry(1, 3, 4, 5), 6))
    before = g.leave(*(_used(g, result) for result in results))
    after = assigned(before)
    x = whole(1, 3, 4, 5, seed=3, low=-3, high=6)
    for was, now in zip(run(before, x), run(after, x), strict=True):
        torch.testing.assert_close(now, was, rtol=1e-6, atol=1e-6)
    assert len(transposes(after)) <= len(transposes(before))
    if name not in ORDERED and all(len(g.shape(result)) == 4 for result in results):
        # One before the first convolution, at most one after each of the last.
        assert len(transposes(after)) <= 1 + len(results)


def _used(g: LayoutGraph, x: Node) -> Node:
    floats = g.values[x].dtype == torch.float32
    return g.conv(x, 2) if floats and len(g.shape(x)) == 4 else x
