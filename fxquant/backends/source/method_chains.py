"""Methods called one after the other on what the one before made, on one line.

x = x.view(2, 3, 4)
x = x.transpose(1, 2)     ->   x = x.view(2, 3, 4).transpose(1, 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fxquant.backends.source.layout import WIDTH, Group, flat
from fxquant.backends.source.statements import Statement

MARGIN = 20  # columns of a line that the joined code leaves free: for indentation and the target


def join_methods(statements: Sequence[Statement]) -> list[Statement]:
    """The statements of a body, those joined that fit a line and have nothing said of them."""
    joined: list[Statement] = []
    for statement in statements:
        whole = _joined(joined[-1], statement) if joined else None
        if whole is None:
            joined.append(statement)
        else:
            joined[-1] = whole
    return joined


def _joined(first: Statement, second: Statement) -> Statement | None:
    name = second.receiver
    if not name or list(first.targets) != [name] or list(second.targets) != [name]:
        return None
    if first.comment or second.comment or not _is_call_of_method(first):
        return None
    code = second.code
    assert isinstance(code, Group)
    whole = Group(flat(first.code) + code.open.removeprefix(name), code.items, code.close)
    return replace(first, code=whole) if len(flat(whole)) <= WIDTH - MARGIN else None


def _is_call_of_method(statement: Statement) -> bool:
    return bool(statement.receiver) or statement.starts_chain
