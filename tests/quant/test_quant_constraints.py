"""The constraint table: rows, roles and what is read from nodes."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import nn

from fxquant.quant.constraints import (
    INFINITY,
    ConstraintTable,
    asymmetric,
    carried,
    clamp_bounds,
    fixed,
    is_float,
    operands_of,
    operator_name,
    refused,
    row,
    symmetric,
)
from tests.passes.core_graphs import TABLE, Builder


def test_the_first_row_that_holds_counts() -> None:
    small, large = row(self=asymmetric, when=lambda node: node.name == "small"), refused("too big")
    table = ConstraintTable("toy", {"relu": (small, large)})
    b = Builder()
    x = b.input("x", torch.randn(2))
    first, second = b("relu", x, name="small"), b("relu", x, name="large")
    root = b.finish(first, second)
    assert table.row_of(first, root) is small
    found = table.row_of(second, root)
    assert found is large and found.problem(second) == "too big"
    assert table.row_of(x, root) is None


def test_checks_give_the_first_reason() -> None:
    checked = row(
        self=asymmetric, checks=(lambda n: None, lambda n: f"not {n.name}", lambda n: "x")
    )
    b = Builder()
    assert checked.problem(b("relu", b.input("x", torch.randn(2)))) == "not relu"


def test_operands_are_the_float_tensors_by_argument_name() -> None:
    b = Builder(w=torch.randn(2, 3))
    x = b.input("x", torch.randn(1, 3))
    linear = b("linear", x, b.get("w"))
    assert [(o.name, o.node.name) for o in operands_of(linear)] == [("input", "x"), ("weight", "w")]
    cat = b("cat", [x, x])
    assert [o.name for o in operands_of(cat)] == ["tensors", "tensors"]
    index = b("index_select", x, 1, b.input("i", torch.tensor([0])))
    assert [o.name for o in operands_of(index)] == ["self"]


def test_names_of_operators_and_modules() -> None:
    b = Builder()
    b.root.add_module("drop", nn.Dropout())
    x = b.input("x", torch.randn(4))
    dropped = b.graph.call_module("drop", (x,))
    parts = b("split.Tensor", x, 2)
    part = b.call(operator.getitem, parts, 0)
    names = [operator_name(node, b.finish(part)) for node in (dropped, parts, part)]
    assert names == ["Dropout", "split", "getitem"]
    assert is_float(parts)


@pytest.mark.parametrize(
    ("call", "bounds"),
    [
        (("relu",), (0.0, INFINITY)),
        (("relu6",), (0.0, 6.0)),
        (("hardtanh",), (-1.0, 1.0)),
        (("hardtanh", 0.0, 4.0), (0.0, 4.0)),
        (("clamp", None, 3), (-INFINITY, 3.0)),
        (("clamp_min", 1), (1.0, INFINITY)),
        (("sigmoid",), None),
    ],
)
def test_clamp_bounds(call: tuple[object, ...], bounds: tuple[float, float] | None) -> None:
    b = Builder()
    x = b.input("x", torch.randn(2))
    assert clamp_bounds(b(str(call[0]), x, *call[1:])) == bounds


def test_roles_print() -> None:
    texts = [str(role) for role in (asymmetric, symmetric(0), carried("self"), fixed(int8=(1, 0)))]
    assert texts == ["asymmetric", "symmetric(axis=0)", "carried(self)", "fixed"]


def test_fixed_parameters_by_dtype() -> None:
    role = fixed(int8=(1 / 256, -128), int16=(2**-15, 0))
    assert role.fixed_for("int16") == (2**-15, 0)
    assert role.fixed_for("uint8") is None


def test_the_toy_table_is_whole() -> None:
    assert all(TABLE.rows.values())
