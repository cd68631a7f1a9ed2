"""Calls of the modules of a list, one after the other, as a loop.

x = self.blocks[0](x, mask)
x = self.blocks[1](x, mask)   ->   for block in self.blocks:
x = self.blocks[2](x, mask)            x = block(x, mask)
"""

from __future__ import annotations

from collections.abc import Sequence

from fxquant.backends.source.layout import call
from fxquant.backends.source.places import LISTS, Places
from fxquant.backends.source.statements import Statement
from fxquant.backends.source.variables import identifier, singular


def fold_loops(statements: Sequence[Statement], base: str, places: Places) -> list[Statement]:
    """The statements of a method of the module at `base`, with loops where they say the same."""
    folded: list[Statement] = []
    start = 0
    while start < len(statements):
        stop = start + 1
        while stop < len(statements) and _continues(statements[stop - 1], statements[stop], places):
            stop += 1
        loop = _loop(statements[start:stop], base, places) if stop - start > 1 else None
        folded.extend([loop] if loop is not None else statements[start:stop])
        start = stop
    return folded


def _place(statement: Statement) -> tuple[str, int] | None:
    parent, _, name = (statement.module or "").rpartition(".")
    return (parent, int(name)) if name.isdigit() else None


def _continues(before: Statement, after: Statement, places: Places) -> bool:
    """Whether the second is the first again, with the next module of one list."""
    first, second = _place(before), _place(after)
    if first is None or second is None or second != (first[0], first[1] + 1):
        return False
    alike = before.targets == after.targets and list(before.arguments) == list(after.arguments)
    return (
        alike
        and len(after.targets) == 1
        and after.targets[0] in after.arguments
        and before.comment == after.comment
        and places.form(first[0]) == "list"
    )


def _loop(run: Sequence[Statement], base: str, places: Places) -> Statement | None:
    place, end = _place(run[0]), _place(run[-1])
    assert place is not None and end is not None
    path, first = place
    owner = places.access(base, path) if path != base else "self"
    count = len(places.names(path))
    kind = places.kinds.get(path)
    if (first, end[1]) != (0, count - 1):
        if path in places.called or (kind is not None and kind.name not in LISTS):
            return None  # a slice of it would be made by a constructor with arguments
        stop = "" if end[1] == count - 1 else end[1] + 1
        owner += f"[{first or ''}:{stop}]"
    name = path.rpartition(".")[2]
    variable = identifier(singular(name) if singular(name) != name else "layer", "layer")
    if variable in {*run[0].targets, *map(str, run[0].arguments)}:
        variable = f"each_{variable}"
    code = call(variable, run[0].arguments)
    return Statement(run[0].targets, code, head=f"for {variable} in {owner}:")
