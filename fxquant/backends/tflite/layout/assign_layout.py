"""The pass `assign-layout`: how each value is stored, so that the fewest bytes are transposed.

Before (channels-first values, channels-last operators) and after, for `io_layout="nhwc"`:

    graph(%x: f32[1,3,8,8]):                                graph(%x: f32[1,8,8,3]):
      %x_1 = transpose(%x) {perm=(0,2,3,1)}                   %a = conv_2d(%x, @w, @b)
      %a = conv_2d(%x_1, @w, @b)                              %c = relu(%a)
      %a_1 = transpose(%a) {perm=(0,3,1,2)}                   %m = mean(%c, (1,2))
      %c = relu(%a_1)                                         return (%m)
      %m = mean(%c, (2,3))
      return (%m)

Convolutions need their channels last; element-wise operators work on any layout, reductions and
concatenations too once their axes are renamed; reshapes where the dimensions that they merge stay
together; a transpose by the user is free if its reader stores the value as its writer did. Which
layout each value gets is a minimum cut over the whole graph: see `problem`, `families` and `moves`.

Every operator computes the same numbers on the same data. Integers are bit-identical; sums of
floats may be taken in another order, as a runtime takes them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.fx import GraphModule

from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES, Pass, PassResult, Semantics, close
from fxquant.passes.registry import register_pass

from .borders import Borders, update_signature
from .moves import solve
from .problem import Problem
from .rewrite import rewrite


@register_pass
@dataclass(frozen=True)
class AssignLayout(Pass):
    """Store each value channels first or last, whichever transposes the fewest bytes.

    Attributes:
        io_layout: with "nhwc", inputs and outputs of rank 4 and 5 have their channels last. Such
            an input has the permutation of the model's in `meta["io_permutation"]`; for outputs
            there is a list (None where nothing moved) in the output node's.
        channels_last: names of inputs and outputs with their channels last whatever their rank.
        channels_first: names of those that stay as the model has them.
    """

    name: ClassVar[str] = "assign-layout"
    requires: ClassVar[frozenset[str]] = frozenset({"tfl"})
    establishes: ClassVar[frozenset[str]] = frozenset({"layout"})
    semantics: ClassVar[Semantics] = close(1e-5)

    io_layout: Literal["nchw", "nhwc"] = "nchw"
    channels_last: tuple[str, ...] = ()
    channels_first: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.io_layout == "nhwc" or self.channels_last:
            # The graph is called with other shapes: no longer the same function.
            object.__setattr__(self, "semantics", CHANGES)

    def run(self, graph_module: GraphModule) -> PassResult:
        problem = Problem(
            graph_module, Borders(self.io_layout, self.channels_last, self.channels_first)
        )
        before = problem.total()
        solve(problem)
        modified = rewrite(graph_module, problem)
        if modified:
            update_signature(graph_module)
            _note(graph_module, before, problem.total())
        return PassResult(graph_module, modified)


def _note(graph_module: GraphModule, before: int, after: int) -> None:
    notes = state_of(graph_module).notes.setdefault(AssignLayout.name, [])
    notes.append(f"transposed bytes: {before >> 10} before, {after >> 10} after")
