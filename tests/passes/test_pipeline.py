"""Pipelines: editing, checking of requirements, running, and what instruments see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import fx, nn
from torch.fx import GraphModule

from fxquant.errors import PassError, PipelineError
from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES, EXACT, Pass, PassResult, Semantics, close
from fxquant.passes.instruments import Dump, Lint, Timing, instruments
from fxquant.passes.pipeline import Pipeline


@dataclass(frozen=True)
class Establish(Pass):
    """Establishes `painted`."""

    name: ClassVar[str] = "paint"
    establishes: ClassVar[frozenset[str]] = frozenset({"painted"})

    color: str = "red"

    def run(self, graph_module: GraphModule) -> PassResult:
        return PassResult(graph_module, False)


@dataclass(frozen=True)
class Need(Pass):
    """Needs `painted`, and washes it off."""

    name: ClassVar[str] = "wash"
    requires: ClassVar[frozenset[str]] = frozenset({"painted"})
    invalidates: ClassVar[frozenset[str]] = frozenset({"painted"})
    semantics: ClassVar[Semantics] = close(0.25)

    def run(self, graph_module: GraphModule) -> PassResult:
        return PassResult(graph_module, False)


@dataclass(frozen=True)
class AddOne(Pass):
    """%y  ->  %y + 1"""

    name: ClassVar[str] = "add-one"
    semantics: ClassVar[Semantics] = CHANGES

    def run(self, graph_module: GraphModule) -> PassResult:
        output = next(node for node in graph_module.graph.nodes if node.op == "output")
        with graph_module.graph.inserting_before(output):
            new = graph_module.graph.call_function(torch.ops.aten.add.Tensor, (output.args[0], 1))
        output.args = (new,)
        return PassResult(graph_module, True)


@dataclass(frozen=True)
class Break(Pass):
    """Raises, or leaves a read of a parameter that does not exist."""

    name: ClassVar[str] = "break"

    quietly: bool = False

    def run(self, graph_module: GraphModule) -> PassResult:
        if not self.quietly:
            raise ZeroDivisionError("oops")
        with graph_module.graph.inserting_before(next(iter(graph_module.graph.nodes))):
            graph_module.graph.create_node("get_attr", "nowhere.weight")
        return PassResult(graph_module, False)


def identity() -> GraphModule:
    class Identity(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    return fx.symbolic_trace(Identity())


def names(pipeline: Pipeline) -> list[str]:
    return [item.name for item in pipeline.flat()]


def test_editing_returns_new_pipelines() -> None:
    pipeline = Pipeline((Establish(), Pipeline((Need(),))))
    assert names(pipeline.insert_before("wash", AddOne())) == ["paint", "add-one", "wash"]
    assert names(pipeline.insert_after("paint", AddOne())) == ["paint", "add-one", "wash"]
    assert names(pipeline.replace("wash", AddOne())) == ["paint", "add-one"]
    assert names(pipeline.remove("paint")) == ["wash"]
    assert names(pipeline.append(AddOne())) == ["paint", "wash", "add-one"]
    assert pipeline.with_options("paint", color="blue").passes[0] == Establish("blue")
    assert names(pipeline) == ["paint", "wash"]


def test_editing_around_an_absent_pass_says_what_is_there() -> None:
    with pytest.raises(PipelineError, match="no pass named 'dye'\n  fix    it has paint, wash"):
        Pipeline((Establish(), Need())).remove("dye")


def test_an_unknown_option_says_which_there_are() -> None:
    with pytest.raises(PipelineError, match="no option size\n  fix    its options are color"):
        Pipeline((Establish(),)).with_options("paint", size=3)


def test_a_missing_requirement_is_found_before_anything_runs() -> None:
    graph_module = identity()
    with pytest.raises(PipelineError, match="wash requires 'painted', which does not hold there"):
        Pipeline((AddOne(), Need()))(graph_module)


def test_an_invalidated_property_is_missing_for_the_next() -> None:
    with pytest.raises(PipelineError, match="wash requires 'painted'"):
        Pipeline((Establish(), Need(), Need())).check()
    assert Pipeline((Establish(), Need())).check() == set()


def test_the_contract_of_a_pipeline_is_the_loosest() -> None:
    assert Pipeline((Establish(),)).contract() == EXACT
    assert Pipeline((Establish(), Need(), Need())).contract() == close(0.5)
    assert Pipeline((Establish(), AddOne())).contract() == CHANGES


def test_running_leaves_the_given_graph_as_it_was() -> None:
    graph_module = identity()
    result = Pipeline((AddOne(), Establish()))(graph_module)
    x = torch.zeros(2)
    assert torch.equal(result(x), x + 1)
    assert torch.equal(graph_module(x), x)
    assert state_of(result).properties == {"painted"}
    assert state_of(graph_module).properties == set()


def test_a_failing_pass_is_named() -> None:
    with pytest.raises(PassError, match="the pass break failed: ZeroDivisionError: oops"):
        Pipeline((Break(),))(identity())


def test_lint_names_the_pass_that_left_an_invalid_graph() -> None:
    message = "the pass break{quietly=true} left an invalid graph"
    with pytest.raises(PassError) as caught, instruments(Lint()):
        Pipeline((AddOne(), Break(quietly=True)))(identity())
    assert message in str(caught.value)
    assert "@nowhere.weight" in str(caught.value)


def test_timing_has_a_row_for_every_pass() -> None:
    timing = Timing()
    with instruments(timing):
        Pipeline((Establish(), AddOne()))(identity())
    assert [row.name for row in timing.rows] == ["paint", "add-one"]
    assert "add-one" in timing.table()


def test_dumps_are_numbered_text_and_python(tmp_path: Path) -> None:
    with instruments(Dump(tmp_path)):
        Pipeline((Establish(), AddOne()))(identity())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000-input.py",
        "000-input.txt",
        "001-paint.py",
        "001-paint.txt",
        "002-add-one.py",
        "002-add-one.txt",
    ]
    assert "add(%x)" in (tmp_path / "002-add-one.txt").read_text()


def test_a_plan_lists_every_pass_with_its_contract() -> None:
    lines = Pipeline((Establish("blue"), Need())).plan().splitlines()
    assert lines[0].split() == ["pass", "requires", "establishes", "semantics"]
    assert lines[1].split() == ["paint{color=blue}", "painted", "exact"]
    assert lines[2].split() == ["wash", "painted", "close(0.25)"]
