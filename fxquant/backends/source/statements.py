"""One statement of a method's body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fxquant.backends.source.layout import INDENT, WIDTH, Code, Group, lines


@dataclass(frozen=True)
class Statement:
    """`targets = code`, or code alone.

    Attributes:
        targets: the names that it binds.
        code: what it computes.
        module: the path of the module that it calls, if it does that.
        arguments: what that module is called with.
        comment: stands behind it, or above where the line is full.
        head: the line above it that makes it the body of a loop.
        before: a word that the code stands behind, such as `return`.
        receiver: the name whose method it calls and that is bound to the result.
        starts_chain: whether it calls a method of another value.
    """

    targets: Sequence[str]
    code: Code
    module: str | None = None
    arguments: Sequence[Code] = ()
    comment: str | None = None
    head: str | None = None
    before: str = ""
    receiver: str = ""
    starts_chain: bool = False

    @property
    def is_assignment(self) -> bool:
        """Whether it binds exactly one name and does nothing else."""
        return len(self.targets) == 1 and self.head is None

    def lines(self, indent: int) -> list[str]:
        """The statement as text."""
        if self.head is not None:
            inner = Statement(self.targets, self.code, comment=self.comment)
            return [" " * indent + self.head, *inner.lines(indent + INDENT)]
        prefix = f"{', '.join(self.targets)} = " if self.targets else self.before
        if len(self.targets) > 1 and indent + len(prefix) > WIDTH * 3 // 4:
            return self._wide(indent)
        text = lines(self.code, indent, prefix)
        if self.comment is None:
            return text
        if len(text) == 1 and len(text[0]) + len(self.comment) + 4 <= WIDTH:
            return [f"{text[0]}  # {self.comment}"]
        return [" " * indent + f"# {self.comment}", *text]

    def _wide(self, indent: int) -> list[str]:
        """Many names on lines of their own."""
        margin = " " * indent
        comment = [] if self.comment is None else [f"{margin}# {self.comment}"]
        names = Group("(", tuple(self.targets), ")")
        *head, last = lines(names, indent)
        first, *rest = lines(self.code, indent, ") = ")
        return [*comment, *head, first, *rest] if last.strip() == ")" else [*comment, *head, last]
