"""Replace what registered patterns describe: operators written out by hand become one.

    %add = add(%x) {other=3}
    %relu6 = relu6(%add)              ->     %hardswish = hardswish(%x)
    %mul = mul(%x, %relu6)
    %div = div(%mul) {other=6}

Values computed twice are merged first. One walk then looks for all patterns, from the end of the
graph, and is repeated until nothing is found.
Allowed because a fusion computes the same up to the order of rounding; `register_fusion` says more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from fxquant.errors import PassError
from fxquant.ir.edit import prune_attributes
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.common_subexpressions import CommonSubexpressions
from fxquant.passes.fusion.registry import Fusion, fusion_named, registered_fusions
from fxquant.passes.fusion.rewrite import apply
from fxquant.passes.fusion.search import Search
from fxquant.passes.registry import register_pass

ROUNDS = 50


@register_pass
@dataclass(frozen=True)
class FusePatterns(Pass):
    """Replace what registered patterns describe.

    graph(%x):                                   graph(%x):
      %sigmoid = sigmoid(%x)                ->     %silu = silu(%x)
      %mul = mul(%x, %sigmoid)                     return (%silu)
      return (%mul)

    Attributes:
        names: the fusions to apply; all that are made for it where none is named.
    """

    name: ClassVar[str] = "fuse-patterns"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-4)

    names: tuple[str, ...] = ()

    def run(self, graph_module: GraphModule) -> PassResult:
        modified = CommonSubexpressions().run(graph_module).modified
        fusions = [fusion_named(name) for name in self.names] or default_fusions()
        for _ in range(ROUNDS):
            found = _one_walk(Search(fusions, graph_module))
            if not found:
                break
            modified = True
        else:
            names = ", ".join(sorted(set(found)))
            raise PassError(
                f"the fusions {names} still find something after {ROUNDS} walks over the graph",
                fix="a replacement must not hold a pattern again, its own or in a circle",
            )
        if modified:
            prune_attributes(graph_module)
        return PassResult(graph_module, modified)


def default_fusions() -> list[Fusion]:
    """The fusions that are applied when none is named."""
    return [fusion for fusion in registered_fusions().values() if fusion.default]


def _one_walk(search: Search) -> list[str]:
    """Fuse what one walk finds; the names of the fusions."""
    order = {node: float(number) for number, node in enumerate(search.root.graph.nodes)}
    found = []
    for place in search.walk(order):
        apply(place, order)
        search.readings.clear()
        found.append(place.match.name)
    return found
