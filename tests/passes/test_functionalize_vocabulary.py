"""Every row of docs/core_dialect.md: the spellings on the left become the text on the right."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from fxquant.passes.functionalize import Functionalize
from fxquant.tracing.trace import trace

PAGE = Path(__file__).resolve().parents[2] / "docs" / "core_dialect.md"
SCOPE = {"torch": torch, "F": F, "nn": nn}


def inputs() -> dict[str, Tensor]:
    """The tensors that the page speaks of."""
    torch.manual_seed(0)
    return {
        "x": torch.randn(2, 4, 6, 6),
        "y": torch.randn(2, 4, 6, 6),
        "e": torch.rand(2, 4, 6, 6) + 0.1,
        "k": torch.randn(2, 4, 6, 6) > 0,
        "z": torch.randint(0, 4, (2, 4, 6, 6)),
        "s": torch.randn(1, 4, 1, 6),
        "t": torch.randn(2, 4, 6),
        "q": torch.randn(2, 4, 6, 6, 6),
        "m": torch.randn(4, 6),
        "n": torch.randn(6, 5),
        "u": torch.randn(6),
        "i": torch.tensor([2, 0, 1]),
        "w": torch.randn(8, 4, 3, 3),
        "b": torch.randn(8),
    }


def rows() -> Iterator[tuple[str, str]]:
    """Each spelling of the page with the text that it becomes."""
    _, _, tables = PAGE.read_text().partition("\n## ")
    for line in tables.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) != 4 or "`" not in cells[1]:
            continue
        left, right = (
            [c.replace("\\|", "|") for c in re.findall(r"`([^`]+)`", cell)] for cell in cells[1:3]
        )
        for spelling in left:
            yield spelling, right[0] if right else ""


def text(value: Any) -> str:
    """An argument of a node, with the calls that make it, in Python's form."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(text(item) for item in value) + "]"
    if not isinstance(value, Node):
        return repr(value)
    if value.op == "placeholder":
        return value.name
    if value.op == "get_attr":
        return f"@{value.target}"
    if value.op == "call_module":
        return f"@{value.target}({', '.join(map(text, value.args))})"
    if not isinstance(value.target, OpOverload):
        return f"{text(value.args[0])}[{value.args[1]}]"
    name = value.target.__name__.removesuffix(".default")
    options = [f"{key}={text(item)}" for key, item in value.kwargs.items()]
    return f"{name}({', '.join([*map(text, value.args), *options])})"


def result_text(graph_module: GraphModule) -> str:
    """What the graph returns; all outputs of one operator count as that operator."""
    output = next(node for node in graph_module.graph.nodes if node.op == "output")
    results = list(output.args[0])
    if len(results) > 1 and all(each.op == "call_function" for each in results):
        sources = {each.args[0] for each in results if not isinstance(each.target, OpOverload)}
        if len(sources) == 1:
            return text(sources.pop())
    return ", ".join(text(each) for each in results)


def function_of(spelling: str) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """The spelling as a function of the tensors that it names; statements end with `;`."""
    *statements, value = spelling.split("; ")
    tree = ast.parse(spelling)
    known = inputs()
    names = list(dict.fromkeys(n.id for n in ast.walk(tree) if isinstance(n, ast.Name)))
    names = [name for name in names if name in known]
    body = "".join(f"    {line}\n" for line in [*statements, f"return {value}"])
    scope: dict[str, Any] = dict(SCOPE)
    exec(f"def f({', '.join(names)}):\n{body}", scope)
    return scope["f"], tuple(known[name] for name in names)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("spelling", "wanted"), list(rows()))
def test_a_row(spelling: str, wanted: str) -> None:
    function, tensors = function_of(spelling)
    traced = trace(function, tuple(tensor.clone() for tensor in tensors))
    graph_module = Functionalize().run(traced).graph_module
    assert result_text(graph_module) == wanted
    got = tree_leaves(graph_module(*tensors))
    expected = tree_leaves(function(*(tensor.clone() for tensor in tensors)))
    output = next(node for node in graph_module.graph.nodes if node.op == "output")
    for one, other, value in zip(got, expected, output.meta["val"], strict=True):
        assert one.dtype == other.dtype == value.dtype
        assert one.shape == other.shape == value.shape
        assert torch.equal(one, other) or bool(torch.isnan(other).any())


def test_the_page_has_rows() -> None:
    assert len(list(rows())) > 250


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_overloads_are_also_found_without_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_jit_resolve_packet")
    for spelling, wanted in rows():
        function, tensors = function_of(spelling)
        assert result_text(Functionalize().run(trace(function, tensors)).graph_module) == wanted
