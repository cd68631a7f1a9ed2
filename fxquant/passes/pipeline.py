"""An editable list of passes that prints as text and parses back.

    Pipeline.parse("functionalize,fuse-conv-bn,annotate{activations=int8}")

A pipeline is itself a pass. Before it runs anything it checks that every requirement is met by the
graph or by an earlier pass; the error names the passes which could establish what is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from fxquant.errors import FxquantError, PassError, PipelineError, Problem
from fxquant.ir.edit import copy_graph_module, running_pass
from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES, EXACT, Pass, PassResult, Semantics, close
from fxquant.passes.instruments import Instrument, active_instruments
from fxquant.passes.registry import pass_class
from fxquant.passes.requirements import missing
from fxquant.passes.text import parse_passes


@dataclass(frozen=True)
class Pipeline(Pass):
    """Passes in order. Every editing method returns a new pipeline.

    Attributes:
        passes: the passes, pipelines among them allowed.
        title: what the list is called in plans and reports.
    """

    name: ClassVar[str] = "pipeline"

    passes: tuple[Pass, ...] = ()
    title: str = dataclasses.field(default="", compare=False)

    @staticmethod
    def parse(text: str) -> Pipeline:
        """The pipeline that a text names, e.g. `"functionalize,annotate{activations=int8}"`.

        Raises:
            PipelineError: bad syntax, an unknown pass or option, or a value of the wrong type.
        """
        return Pipeline(tuple(parse_passes(text)))

    @staticmethod
    def default(method: str = "ptq") -> Pipeline:
        """A shipped pipeline: `"float"`, `"ptq"` (up to calibration) or `"freeze"` (after it)."""
        from fxquant.passes.pipelines import default_pipeline

        return default_pipeline(method)

    def __str__(self) -> str:
        return ",".join(f"({item})" if isinstance(item, Pipeline) else str(item) for item in self)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def flat(self) -> list[Pass]:
        """The passes in order with nested pipelines opened."""
        found: list[Pass] = []
        for item in self.passes:
            found.extend(item.flat() if isinstance(item, Pipeline) else [item])
        return found

    def insert_before(self, name: str, *new: Pass | str) -> Pipeline:
        """With new passes right before the first one of that name."""
        return self._edit(name, lambda old: [*_passes(new), old])

    def insert_after(self, name: str, *new: Pass | str) -> Pipeline:
        """With new passes right after the first one of that name."""
        return self._edit(name, lambda old: [old, *_passes(new)])

    def replace(self, name: str, *new: Pass | str) -> Pipeline:
        """With new passes instead of the first one of that name."""
        return self._edit(name, lambda _: _passes(new))

    def remove(self, name: str) -> Pipeline:
        """Without the first pass of that name."""
        return self._edit(name, lambda _: [])

    def append(self, *new: Pass | str) -> Pipeline:
        """With new passes at the end."""
        return dataclasses.replace(self, passes=(*self.passes, *_passes(new)))

    def with_options(self, name: str, **options: object) -> Pipeline:
        """With some options of the first pass of that name changed."""
        return self._edit(name, lambda old: [_with_options(old, options)])

    def _edit(self, name: str, change: Callable[[Pass], Sequence[Pass]]) -> Pipeline:
        edited, found = _edit_first(self.passes, name, change)
        if not found:
            names = ", ".join(item.name for item in self.flat())
            raise PipelineError(f"the pipeline has no pass named {name!r}", fix=f"it has {names}")
        return dataclasses.replace(self, passes=tuple(edited))

    def plan(self) -> str:
        """What will run, as a table of text: pass, requires, establishes, semantics."""
        rows = [("pass", "requires", "establishes", "semantics")]
        for item in self.flat():
            rows.append(
                (str(item), _names(item.requires), _names(item.establishes), str(item.semantics))
            )
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def check(self, properties: Iterable[str] = ()) -> set[str]:
        """The properties after the pipeline, given those before.

        Raises:
            PipelineError: requirements that nothing establishes; all of them.
        """
        holds = set(properties)
        problems: list[Problem] = []
        for item in self.flat():
            problems.extend(missing(item, name) for name in sorted(item.requires - holds))
            holds = (holds - item.invalidates) | item.establishes
        if problems:
            raise PipelineError("the pipeline cannot run as listed", problems=problems)
        return holds

    def contract(self) -> Semantics:
        """The semantics of the whole: the loosest of its passes'."""
        kinds = [item.semantics for item in self.flat()]
        if any(kind.kind == CHANGES.kind for kind in kinds):
            return CHANGES
        tolerance = sum(kind.tolerance for kind in kinds)
        return close(tolerance) if tolerance else EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        """Run every pass on a copy of the graph (tensors are shared, never written).

        Raises:
            PipelineError: a requirement is not met.
            PassError: a pass failed; the error names it.
        """
        self.check(state_of(graph_module).properties)
        instruments = active_instruments()
        current = copy_graph_module(graph_module)
        modified = False
        for instrument in instruments:
            instrument.before_pipeline(self, current)
        for item in self.flat():
            result = run_pass(item, current, instruments)
            current, modified = result.graph_module, modified or result.modified
        for instrument in instruments:
            instrument.after_pipeline(self, current)
        return PassResult(current, modified)

    def __call__(self, graph_module: GraphModule) -> GraphModule:
        """The graph after all passes; the given one is left as it was."""
        return self.run(graph_module).graph_module


def run_pass(
    item: Pass, graph_module: GraphModule, instruments: Sequence[Instrument] = ()
) -> PassResult:
    """Run one pass: instruments see it, its properties and provenance are recorded."""
    for instrument in instruments:
        instrument.before_pass(item, graph_module)
    try:
        result = _run_checked(item, graph_module)
        for instrument in reversed(instruments):
            instrument.after_pass(item, result)
    except Exception as error:
        for instrument in instruments:
            instrument.pass_failed(item, graph_module, error)
        raise
    return result


def _run_checked(item: Pass, graph_module: GraphModule) -> PassResult:
    try:
        with running_pass(item.name):
            result = item.run(graph_module)
    except FxquantError:
        raise
    except Exception as error:
        raise PassError(
            f"the pass {item} failed: {type(error).__name__}: {error}",
            fix="run with FXQUANT_DUMP=folder to see the graph before it",
        ) from error
    if not isinstance(result, PassResult):
        raise PassError(
            f"the pass {item} returned a {type(result).__name__}",
            fix="return PassResult(graph_module, modified)",
        )
    if result.modified:
        result.graph_module.recompile()
    state = state_of(result.graph_module)
    state.properties = (state.properties - item.invalidates) | item.establishes
    return result


def _passes(items: Sequence[Pass | str]) -> list[Pass]:
    found: list[Pass] = []
    for item in items:
        found.extend(parse_passes(item) if isinstance(item, str) else [item])
    return found


def _edit_first(
    passes: Sequence[Pass], name: str, change: Callable[[Pass], Sequence[Pass]]
) -> tuple[list[Pass], bool]:
    edited: list[Pass] = []
    for position, item in enumerate(passes):
        rest = passes[position + 1 :]
        if item.name == name:
            return [*edited, *change(item), *rest], True
        if isinstance(item, Pipeline):
            inner, found = _edit_first(item.passes, name, change)
            if found:
                return [*edited, dataclasses.replace(item, passes=tuple(inner)), *rest], True
        edited.append(item)
    return edited, False


def _with_options(item: Pass, options: dict[str, object]) -> Pass:
    known = {field.name for field in dataclasses.fields(item)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise PipelineError(
            f"the pass {item.name} has no option {', '.join(unknown)}",
            fix=f"its options are {', '.join(sorted(known)) or 'none'}",
        )
    return dataclasses.replace(item, **options)


def _names(properties: frozenset[str]) -> str:
    return " ".join(sorted(properties))


__all__ = ["Pipeline", "pass_class", "run_pass"]
