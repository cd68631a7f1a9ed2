"""What the user may have meant by a rule that matches nothing.

rule node=conv2d_7 -> float32: matches no node
  fix    did you mean node=conv2d_1 or node=conv2d_2?
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch.fx import GraphModule, Node

from fxquant.ir.source import source_of
from fxquant.quant.constraints import operator_name

if TYPE_CHECKING:
    from fxquant.quant.config import Rule

MOST = 3


def close_names(rule: Rule, nodes: Iterable[Node], root: GraphModule) -> str | None:
    """The names of a graph that are spelled like those of a rule, as advice; None if there are
    none."""
    known = {"node": set[str](), "module": set[str](), "op": set[str]()}
    for node in nodes:
        known["node"].add(node.name)
        known["op"].add(operator_name(node, root))
        source = source_of(node)
        known["module"].update(_paths(source.path if source is not None else ""))
    found: list[str] = []
    for kind, names in known.items():
        wanted = getattr(rule, kind)
        if wanted and wanted not in names:
            close = difflib.get_close_matches(wanted, sorted(names), n=MOST)
            found.extend(f"{kind}={name}" for name in close)
    return f"did you mean {' or '.join(found)}?" if found else None


def _paths(path: str) -> Iterable[str]:
    """A module path and those of the modules around it."""
    parts = path.split(".") if path else []
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))
