"""Write operators without an integer kernel as the steps that have one.

    %m = mean(%x); %d = sub(%x, %m)
    %y = layer_norm(%x, [64], @w, @b)   ->   %v = mean(mul(%d, %d)); %r = rsqrt(add(%v, eps))
                                             %y = add(mul(mul(%d, %r), @w), @b)

Each step has a scale of its own, which is observed like any other. In float the operator is faster
and closer, so it is taken apart only where integers are asked for (`QuantConfig.wants_integers`)
and the target says that it computes the operator so (`Row.in_steps`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from fxquant.ir.aten import is_aten
from fxquant.ir.edit import OUTSIDE, prune_attributes
from fxquant.ir.state import state_of
from fxquant.passes.base import Pass, PassResult, Semantics, close
from fxquant.passes.integer_steps import STEPS, Steps
from fxquant.passes.registry import register_pass
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import ConstraintTable, operator_name


@register_pass
@dataclass(frozen=True)
class WriteIntegerSteps(Pass):
    """Write normalizations and their like in steps of which each has an integer kernel.

    graph(%x, %y):                                 graph(%x, %y):
      %z = div(%x, %y)                       ->      %z_inverse = reciprocal(%y)
                                                     %z_product = mul(%x, %z_inverse)
      return (%z)                                    return (%z_product)
    """

    name: ClassVar[str] = "write-integer-steps"
    requires: ClassVar[frozenset[str]] = frozenset({"functional", "shapes"})
    semantics: ClassVar[Semantics] = close(1e-4)

    def run(self, graph_module: GraphModule) -> PassResult:
        found = list(_asked(graph_module))
        for node, dtype in found:
            name = operator_name(node, graph_module)
            write = Steps(graph_module, node, name, multiplies=_multiplies(graph_module, dtype))
            node.replace_all_uses_with(STEPS[name](write, node))
            graph_module.graph.erase_node(node)
        if found:
            prune_attributes(graph_module)
        return PassResult(graph_module, bool(found))


def _asked(root: GraphModule) -> Iterator[tuple[Node, str]]:
    """The operators that are to be integers and that the target has only in steps; the dtype."""
    state = state_of(root)
    table = state.constraints
    if not isinstance(table, ConstraintTable):
        return
    config = state.config if isinstance(state.config, QuantConfig) else QuantConfig()
    for node in root.graph.nodes:
        inside = is_aten(node) and OUTSIDE not in node.meta
        row = table.row_of(node, root) if inside else None
        if row is None or operator_name(node, root) not in STEPS:
            continue
        choice = config.choice(node, root)
        spec = choice.precision.activations
        if config.wants_integers(choice) and spec is not None and spec.dtype in row.in_steps:
            yield node, spec.dtype


def _multiplies(root: GraphModule, dtype: str) -> bool:
    """Whether the target multiplies two computed matrices of a dtype."""
    table = state_of(root).constraints
    assert isinstance(table, ConstraintTable)
    found = table.rows.get("matmul", ())
    rows = found if isinstance(found, tuple) else (found,)
    return bool(rows) and dtype in rows[-1].dtypes
