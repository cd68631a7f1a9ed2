"""Reading a configuration from YAML, so that every problem is told at once, each with its line.

rules:                        ConfigError: the configuration cannot be read
- op: add                       rule 1 of the configuration: there is no precision 'int7'
  precision: int7                 (mixed.yaml:2)
  modul: head                   'modul' in rule 1 … means nothing (mixed.yaml:4)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any

from fxquant.errors import ConfigError, Problem
from fxquant.quant.rule_places import Key, located


def written_fields(kind: type[Any]) -> list[Field[Any]]:
    """The fields that a person writes."""
    return [each for each in fields(kind) if each.compare]


class Reader:
    """Makes a configuration from the plain data of YAML; every problem is kept with its line.

    Args:
        lines: of the values, by the keys that lead there.
        rule: the class of rules.
        nested: the classes of other values that are keys and values themselves.
    """

    def __init__(
        self, lines: Mapping[Key, str], rule: type[Any], nested: Mapping[str, type[Any]]
    ) -> None:
        self.lines, self.rule, self.nested = lines, rule, nested
        self.problems: list[Problem] = []

    def check(self) -> None:
        """Raise if anything was wrong."""
        if self.problems:
            raise ConfigError("the configuration cannot be read", problems=self.problems)

    def read(self, kind: type[Any], data: Any, where: str, key: Key) -> Any:
        """A dataclass, unknown keys refused; None where something was wrong."""
        if not isinstance(data, Mapping):
            what = f"{where} must be keys and values, got {type(data).__name__}"
            return self._refused(what, key)
        known = [each.name for each in written_fields(kind)]
        given: dict[str, Any] = {}
        for name, value in data.items():
            inner = (*key, str(name))
            if name in known:
                given[name] = self._value(name, value, where, inner)
            else:
                self._refused(f"{name!r} in {where} means nothing", inner, _meant(name, known))
        if kind is self.rule:
            given["place"] = self.lines.get(key, "")
        return self._built(lambda: kind(**given), where, key)

    def listed(self, nodes: Any) -> list[Any]:
        """The rules of a listing: node name -> precision."""
        if not isinstance(nodes, Mapping):
            what = f"nodes must be names and precisions, got {type(nodes).__name__}"
            self._refused(what, ("nodes",))
            return []
        rules = [self._for_node(str(name), str(wanted)) for name, wanted in nodes.items()]
        return [rule for rule in rules if rule is not None]

    def _for_node(self, name: str, wanted: str) -> Any:
        key = ("nodes", name)
        place = self.lines.get(key, "")
        return self._built(
            lambda: self.rule(precision=wanted, node=name, place=place), f"node {name}", key
        )

    def _built(self, make: Callable[[], Any], where: str, key: Key) -> Any:
        try:
            return make()
        except ConfigError as error:
            return self._refused(f"{where}: {error.problem.what}", key, error.problem.fix)
        except TypeError as error:
            return self._refused(f"{where} cannot be read: {error}", key)

    def _refused(self, what: str, key: Key, fix: str | None = None) -> None:
        self.problems.append(Problem(located(what, self.lines.get(key, "")), fix=fix))

    def _value(self, name: str, value: Any, where: str, key: Key) -> Any:
        if name == "rules":
            items = value if isinstance(value, list) else [value]
            return tuple(
                self.read(self.rule, item, f"rule {n + 1} of {where}", (*key, n))
                for n, item in enumerate(items)
            )
        if name in self.nested and value is not None:
            return self.read(self.nested[name], value, f"{name} of {where}", key)
        if name == "keep_float":
            return tuple([value] if isinstance(value, str) else value)
        return tuple(value) if isinstance(value, list) else value


def _meant(key: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
