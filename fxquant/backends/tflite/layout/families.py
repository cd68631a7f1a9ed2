"""Which forms of the operators are worth trying: those in which they agree with a pinned one.

    conv_2d   relu   add   pad   conv_2d        the layouts of the two convolutions spread through
    (pinned)   f      f     f    (pinned)       what lies between; all the forms f are one family

The layouts of pinned operators spread through the graph, the nearest first. Forms that spread into
each other are a *family*: between them nothing is transposed. An operator may have forms of several
families, but one only of each.
"""

from __future__ import annotations

from collections import deque

from .layouts import Layout
from .operators import PINNED, Operator
from .problem import End, Problem, Value

MOST_FORMS = 6

Proposal = dict[Operator, Layout]


class _Families:
    """Sets of forms that grow together as long as no operator has two forms in one."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._members: list[Proposal] = []

    def new(self) -> int:
        """A family without members."""
        self._parents.append(len(self._parents))
        self._members.append({})
        return len(self._parents) - 1

    def find(self, family: int) -> int:
        """The family that this one has become a part of."""
        while self._parents[family] != family:
            self._parents[family] = self._parents[self._parents[family]]
            family = self._parents[family]
        return family

    def add(self, family: int, operator: Operator, form: Layout) -> int:
        """A member of the family, or of a new one where the operator has another form in it."""
        known = self._members[self.find(family)].setdefault(operator, form)
        return family if known == form else self.add(self.new(), operator, form)

    def share(self, family: int, operator: Operator, form: Layout) -> None:
        """A member of this family too, where it has none of the operator's forms."""
        self._members[self.find(family)].setdefault(operator, form)

    def join(self, first: int, second: int) -> None:
        """Make two families one, if they agree."""
        both = (self.find(first), self.find(second))
        small, large = sorted(both, key=lambda family: len(self._members[family]))
        joining, members = self._members[small], self._members[large]
        if small == large or any(members.get(op, form) != form for op, form in joining.items()):
            return
        members.update(joining)
        self._members[small] = {}
        self._parents[small] = large

    def proposals(self) -> list[Proposal]:
        """The members of each family, the largest family first."""
        return sorted(filter(None, self._members), key=len, reverse=True)


def proposals(problem: Problem) -> list[Proposal]:
    """New forms for some of the operators, to be accepted or refused one by one.

    Families that share no operator are proposed together: the largest, channels-last as a rule,
    comes first with all that does not concern it.
    """
    found: list[Proposal] = []
    for family in _Spread(problem).families.proposals():
        room = next((batch for batch in found if batch.keys().isdisjoint(family)), None)
        if room is None:
            found.append(dict(family))
        else:
            room.update(family)
    return found


class _Spread:
    """The layouts of the pinned operators on their way through the graph."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.families = _Families()
        self._reached: dict[tuple[Value, Layout], int] = {}
        self._forms: dict[Operator, dict[Layout, int]] = {}
        self._queue: deque[tuple[Value, Layout]] = deque()
        for operator in problem.operators:
            if operator.axes is None:
                self._begin(operator)
        while self._queue:
            self._spread(*self._queue.popleft())

    def _begin(self, operator: Operator) -> None:
        for value, end in self.problem.ends[operator]:
            layout = end.layout(PINNED)
            if (value, layout) not in self._reached:
                self._reach(value, layout, self.families.new())

    def _reach(self, value: Value, layout: Layout, family: int) -> None:
        known = self._reached.setdefault((value, layout), family)
        if known == family:
            self._queue.append((value, layout))
        else:
            self.families.join(known, family)

    def _spread(self, value: Value, layout: Layout) -> None:
        family = self._reached[value, layout]
        for end in (value.writer, *value.readers):
            form = end.form(layout)
            if form is not None:
                self._offer(end, form, family)

    def _offer(self, end: End, form: Layout, family: int) -> None:
        operator = end.operator
        offered = self._forms.setdefault(operator, {})
        if form in offered:
            self.families.join(offered[form], family)
            self.families.share(family, operator, form)
        elif len(offered) < MOST_FORMS:
            family = offered[form] = self.families.add(family, operator, form)
            for value, far in self.problem.ends[operator]:
                if far is not end:
                    self._reach(value, far.layout(form), family)
