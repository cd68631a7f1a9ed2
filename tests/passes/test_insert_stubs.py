"""insert-stubs: where quantized regions begin and end."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule

from fxquant.ir.edit import get_attribute
from fxquant.ir.printer import format_graph
from fxquant.ir.validity import check_graph
from fxquant.quant.stubs import DeQuantStub, QuantStub
from tests.conftest import Golden
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import annotated, stubbed


def stubs(graph_module: GraphModule) -> list[tuple[str, str]]:
    """Each stub as (kind, value), in order."""
    found = []
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            module = get_attribute(graph_module, str(node.target))
            kind = {QuantStub: "quant", DeQuantStub: "dequant"}[type(module)]
            found.append((kind, node.all_input_nodes[0].name))
    return found


def test_insert_stubs_before_and_after(golden: Golden) -> None:
    before = annotated(pooled_convolution())
    after = stubbed(pooled_convolution())
    golden("insert_stubs", format_graph(before) + "\n" + format_graph(after))
    check_graph(after)


def test_nothing_changes_numerically() -> None:
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(stubbed(pooled_convolution())(x)[0], pooled_convolution()(x)[0])


def test_one_stub_per_value() -> None:
    b = Builder()
    x = b.input("x", torch.randn(1, 4))
    add = b("add.Tensor", x, x)
    outside = (b("exp", add), b("exp", add))
    graph_module = stubbed(b.finish(b("sigmoid", x), *outside, add))
    expected = [("quant", "x"), ("dequant", "add"), ("dequant", "sigmoid")]
    assert sorted(stubs(graph_module)) == sorted(expected)


def test_a_float_graph_gets_none() -> None:
    b = Builder()
    graph_module = stubbed(b.finish(b("exp", b.input("x", torch.randn(2)))))
    assert stubs(graph_module) == []


def test_weights_get_none() -> None:
    b = Builder(w=torch.randn(2, 4))
    x = b.input("x", torch.randn(1, 4))
    assert stubs(stubbed(b.finish(b("linear", x, b.get("w"))))) == [
        ("quant", "x"),
        ("dequant", "linear"),
    ]


def test_an_input_passed_through_gets_none() -> None:
    b = Builder()
    x, y = b.input("x", torch.randn(2)), b.input("y", torch.randn(2))
    assert stubs(stubbed(b.finish(b("relu", x), y))) == [("quant", "x"), ("dequant", "relu")]


def test_parts_get_stubs_and_their_tuple_none() -> None:
    b = Builder()
    x = b.input("x", torch.randn(1, 4))
    parts = b("split.Tensor", b("add.Tensor", x, x), 2, 1)
    first, second = (b.call(operator.getitem, parts, i) for i in (0, 1))
    graph_module = stubbed(b.finish(b("exp", first), b("relu", second)))
    assert ("dequant", "getitem") in stubs(graph_module)
    assert all(value != "split" for _, value in stubs(graph_module))


def test_names_that_are_taken() -> None:
    b = Builder(x_quant=torch.ones(1))
    x = b.input("x", torch.randn(2))
    graph_module = stubbed(b.finish(b("relu", x), b.get("x_quant")))
    check_graph(graph_module)
    assert stubs(graph_module) == [("quant", "x"), ("dequant", "relu")]
