"""Why a requirement is not met: who could establish it, or that nobody can, or that it is a cycle.

wash requires 'painted', which does not hold there
  fix    put one of these before it: paint
"""

from __future__ import annotations

from collections.abc import Iterable

from fxquant.errors import Problem
from fxquant.passes.base import Pass
from fxquant.passes.registry import passes_establishing, registered_passes


def missing(item: Pass, wanted: str) -> Problem:
    """What is wrong where a pass requires a property that does not hold, and what to do."""
    what = f"{item.name} requires {wanted!r}, which does not hold there"
    makers = passes_establishing(wanted)
    if not makers:
        return Problem(what, fix="no pass establishes it")
    cycles = {maker: _cycle(maker, item.establishes) for maker in makers}
    free = [maker for maker, cycle in cycles.items() if not cycle]
    if free:
        return Problem(what, fix=f"put one of these before it: {', '.join(free)}")
    maker, needed = next(iter(cycles.items()))
    fix = f"{maker} establishes it and requires {needed!r} of {item.name} itself: a cycle"
    return Problem(what, fix=fix)


def _cycle(maker: str, own: Iterable[str]) -> str:
    """A property that the maker needs and that no other pass than the one in need establishes."""
    requires = registered_passes()[maker].requires
    return next((name for name in sorted(requires & set(own)) if len(_others(name, maker)) < 2), "")


def _others(name: str, maker: str) -> list[str]:
    return [each for each in passes_establishing(name) if each != maker]
