"""What a pass is: a frozen dataclass with a name, a contract and a `run`.

The fields of the dataclass are the options of the pass. The contract names *properties* of the
graph, never other passes: what must hold before (`requires`), what holds afterwards
(`establishes`), what no longer does (`invalidates`), and how the result relates to the input
(`semantics`).

    @register_pass
    @dataclass(frozen=True)
    class DropDropout(Pass):
        '''%y = Dropout(%x); relu(%y)  ->  relu(%x)'''

        name: ClassVar[str] = "drop-dropout"
        requires: ClassVar[frozenset[str]] = frozenset({"functional"})
        semantics: ClassVar[Semantics] = EXACT

        def run(self, graph_module: GraphModule) -> PassResult: ...
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple

from torch.fx import GraphModule

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.*-]*")


class PassResult(NamedTuple):
    """The graph after a pass, and whether the pass changed anything."""

    graph_module: GraphModule
    modified: bool


@dataclass(frozen=True)
class Semantics:
    """How the outputs of a pass's result compare with those of its input.

    Attributes:
        kind: "exact" (bit-identical), "close" (up to re-association) or "changes".
        tolerance: for "close", the largest error relative to the largest output magnitude.
    """

    kind: str
    tolerance: float = 0.0

    def __str__(self) -> str:
        return f"close({self.tolerance:g})" if self.kind == "close" else self.kind


EXACT = Semantics("exact")
CHANGES = Semantics("changes")


def close(tolerance: float) -> Semantics:
    """Equal up to `tolerance`, relative to the largest magnitude of an output."""
    return Semantics("close", tolerance)


@dataclass(frozen=True)
class Pass(ABC):
    """Base of every pass; see the module docstring for the form of a subclass."""

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset()
    establishes: ClassVar[frozenset[str]] = frozenset()
    invalidates: ClassVar[frozenset[str]] = frozenset()
    semantics: ClassVar[Semantics] = EXACT

    @abstractmethod
    def run(self, graph_module: GraphModule) -> PassResult:
        """Rewrite the graph; see `PassResult`.

        A pass may edit the graph in place and replace attributes of the module, but it never
        writes into a tensor: parameters are shared with the user's model.
        """

    def __str__(self) -> str:
        """The pass as text that `Pipeline.parse` reads: `name{option=value}`, defaults left out."""
        options = ",".join(f"{key}={format_option(value)}" for key, value in self.changed_options())
        return self.name + (f"{{{options}}}" if options else "")

    def changed_options(self) -> list[tuple[str, Any]]:
        """The options that differ from their defaults."""
        pairs = [(field, getattr(self, field.name)) for field in fields(self)]
        return [(f.name, value) for f, value in pairs if f.default is MISSING or f.default != value]


def format_option(value: Any) -> str:
    """An option's value in the text form of a pipeline.

    >>> format_option(("conv", 6, True))
    '[conv;6;true]'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ";".join(format_option(item) for item in value) + "]"
    if value is None:
        return "none"
    text = repr(value) if isinstance(value, float) else str(value)
    return json.dumps(text) if isinstance(value, str) and _needs_quotes(text) else text


def _needs_quotes(text: str) -> bool:
    return text in {"true", "false", "none", "inf", "nan"} or not PLAIN.fullmatch(text)
