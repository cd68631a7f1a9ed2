"""The fusions by name: a pattern, what may refuse it, and what stands there afterwards.

    @register_fusion("sigmoid-silu", replace=F.silu)
    def pattern(x):
        return x * torch.sigmoid(x)

Everything that can be wrong with a fusion whatever the model is found when it is registered.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

from torch.fx import Node

from fxquant.errors import FxquantError, RegistrationError
from fxquant.passes.fusion.match import Match
from fxquant.passes.fusion.pattern import Pattern, ShapeSpec, trace_function, trace_generic
from fxquant.passes.fusion.wildcards import Either, TensorChoice, Wildcard

Function = Callable[..., Any]
Check = Callable[[Match], bool | str]
AnyFunction = TypeVar("AnyFunction", bound=Function)

SHAPE = (2, 4, 8, 8)
OURS = "fxquant.passes.fusion.recognizers"
KEPT = 256
"""How many shapes a form keeps traced."""


@dataclass(eq=False)
class Form:
    """One of the graphs of a fusion: a spelling, with a choice for every `either`."""

    fusion: Fusion
    function: Function
    arguments: Mapping[str, Any]
    _traced: dict[tuple[object, ...], Pattern] = field(default_factory=dict)

    @cached_property
    def pattern(self) -> Pattern:
        """The graph with its wildcards."""
        return trace_generic(self.function, self.arguments)

    def for_values(self, values: Mapping[str, Any]) -> Pattern:
        """The pattern's graph for the shapes and literals of a match."""
        return self._trace(self.function, values)

    def replacement(self, values: Mapping[str, Any]) -> Pattern:
        """The replacement's graph for the shapes and literals of a match."""
        assert self.fusion.replace is not None
        return self._trace(self.fusion.replace, values)

    def _trace(self, function: Function, values: Mapping[str, Any]) -> Pattern:
        arguments = {name: _spec(values[name]) for name in self.arguments}
        key = (function, *(repr(value) for value in arguments.values()))
        if key not in self._traced:
            if len(self._traced) >= KEPT:
                self._traced.clear()
            self._traced[key] = trace_function(function, arguments)
        return self._traced[key]


def _spec(value: Any) -> Any:
    return ShapeSpec.of(value.meta["val"]) if isinstance(value, Node) else value


@dataclass(eq=False)
class Fusion:
    """A registered pattern.

    Attributes:
        name: as pipelines write it.
        spellings: functions that compute the same thing in different ways.
        replace: what stands there afterwards; None keeps the operators and makes them a group.
        check: says True of a match, or why not.
        shapes: examples for the tensor parameters.
        default: whether `fuse-patterns` without names applies it.
        needs: operators without which a graph cannot hold the pattern.
        place: where it was registered.
    """

    name: str
    spellings: tuple[Function, ...]
    replace: Function | None
    check: Check | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    default: bool = True
    needs: tuple[str, ...] = ()
    place: str = ""

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """Every graph of the fusion, checked.

        Raises:
            RegistrationError: the pattern or the replacement cannot be.
        """
        found: list[Form] = []
        for function in self.spellings:
            for arguments in self._choices(function):
                found.append(self._checked(Form(self, function, arguments)))
        return tuple(found)

    def _choices(self, function: Function) -> list[dict[str, Any]]:
        parameters = inspect.signature(function).parameters.values()
        options = {p.name: self._options(p) for p in parameters}
        return [dict(zip(options, chosen, strict=True)) for chosen in product(*options.values())]

    def _options(self, parameter: inspect.Parameter) -> list[Any]:
        tensor = ShapeSpec(tuple(self.shapes.get(parameter.name, SHAPE)))
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise self.error(f"takes {parameter}, and its parameters must be plain ones")
        if parameter.default is parameter.empty:
            return [tensor]
        given = parameter.default
        choices = given.choices if isinstance(given, Either) else (given,)
        return [tensor if isinstance(choice, TensorChoice) else choice for choice in choices]

    def error(self, what: str, fix: str | None = None) -> RegistrationError:
        """What is wrong with the pattern."""
        return RegistrationError(f"the pattern of {self.name!r} {what}", fix=fix)

    def _checked(self, form: Form) -> Form:
        try:
            pattern = form.pattern
        except FxquantError as error:
            raise self.error(f"cannot be followed: {error}") from error
        except Exception as error:
            what = f"fails on its example shapes: {type(error).__name__}: {error}"
            raise self.error(what, 'say shapes={"weight": (8, 4, 3, 3)}') from error
        self._check_nodes(pattern)
        self._check_outputs(pattern)
        self._check_parameters(form)
        self._check_replacement(form)
        return form

    def _check_nodes(self, pattern: Pattern) -> None:
        if not pattern.nodes:
            fix = "a pattern needs an operator of the core dialect (docs/core_dialect.md)"
            raise self.error("functionalizes to nothing", fix)
        for node in pattern.nodes:
            if node.op == "call_module":
                raise self.error(f"holds the module {node.target}", "write it as functions")

    def _check_outputs(self, pattern: Pattern) -> None:
        reached: set[Node] = set()
        for number, output in enumerate(pattern.outputs):
            if output not in pattern.nodes:
                what = f"has an output {number} that no operator of it makes"
                raise self.error(what, "return only what the pattern computes")
            above = _ancestors(output)
            if number and not above & reached:
                what = f"has an output {number} that shares no value with those before it"
                raise self.error(what, "make it a pattern of its own")
            reached |= above
        unused = [node.name for node in pattern.nodes if node not in reached]
        assert not unused, unused

    def _check_parameters(self, form: Form) -> None:
        holes = form.pattern.holes()
        for name, value in form.arguments.items():
            if isinstance(value, Wildcard) and name not in holes:
                what = f"has no literal that is {name} itself"
                raise self.error(what, "let the parameter stand in an operator as it is")
            if isinstance(value, ShapeSpec) and not form.pattern.inputs[name].users:
                raise self.error(f"does not use its parameter {name}", "drop the parameter")

    def _check_replacement(self, form: Form) -> None:
        if self.replace is None:
            if len(form.pattern.outputs) != 1:
                raise self.error("has several outputs and no replacement", "give replace=")
            return
        values = {
            name: value.samples[0] if isinstance(value, Wildcard) else value
            for name, value in form.arguments.items()
        }
        try:
            replacement = trace_function(self.replace, values)
        except Exception as error:
            what = f"the replacement of {self.name!r} fails: {type(error).__name__}: {error}"
            raise RegistrationError(what, fix="it takes the parameters of the pattern") from error
        problem = difference(form.pattern.outputs, replacement.outputs)
        if problem is not None:
            fix = "a replacement gives the same values as its pattern"
            raise RegistrationError(f"the replacement of {self.name!r} {problem}", fix=fix)


def difference(wanted: tuple[Node, ...], found: tuple[Node, ...]) -> str | None:
    """How the replacement's outputs differ in number, shape or dtype; None if they do not."""
    if len(wanted) != len(found):
        return f"gives {len(found)} values where the pattern gives {len(wanted)}"
    for old, new in zip(wanted, found, strict=True):
        before, after = (ShapeSpec.of(node.meta["val"]) for node in (old, new))
        if before != after:
            return f"gives {after} where the pattern gives {before}"
    return None


def _ancestors(node: Node) -> set[Node]:
    found, waiting = {node}, [node]
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand not in found:
                found.add(operand)
                waiting.append(operand)
    return found


_fusions: dict[str, Fusion] = {}


def register_fusion(
    name: str,
    *,
    replace: Function | None = None,
    check: Check | None = None,
    spellings: tuple[Function, ...] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    default: bool = True,
    needs: tuple[str, ...] = (),
    override: bool = False,
) -> Callable[[AnyFunction], AnyFunction]:
    """Make a pattern known to the pass `fuse-patterns`; a decorator of the pattern.

    Args:
        name: of the fusion, e.g. `"conv-hardswish"`.
        replace: a function with the pattern's parameters that computes the same; without one the
            operators stay, and are one for targets whose table names the fusion in `groups`.
        check: is given the `Match`; returns True, or the reason why the place must not be fused.
        spellings: further functions that compute the same in other ways.
        shapes: example shapes by parameter; `(2, 4, 8, 8)` where none is given.
        default: whether `fuse-patterns` without names applies it.
        needs: names of operators, such as "erf"; a graph without any of them is not searched.
        override: take the name away from the fusion that has it.

    Raises:
        RegistrationError: the name is taken, or pattern and replacement cannot be.
    """

    def register(pattern: AnyFunction) -> AnyFunction:
        place = f"{pattern.__module__}.{pattern.__qualname__}"
        functions: tuple[Function, ...] = (pattern, *spellings)
        fusion = Fusion(name, functions, replace, check, shapes or {}, default, needs, place)
        add_fusion(fusion, override)
        return pattern

    return register


def add_fusion(fusion: Fusion, override: bool = False) -> None:
    """Put a fusion into the registry; ours are traced when they are first looked for."""
    old = _fusions.get(fusion.name)
    if old is not None and not override and old.place != fusion.place:
        raise RegistrationError(
            f"the fusion name {fusion.name!r} is taken by {old.place}; {fusion.place} wants it too",
            fix="choose another name, or register with override=True",
        )
    if not fusion.place.startswith(OURS):
        assert fusion.forms
    _fusions[fusion.name] = fusion


def registered_fusions() -> dict[str, Fusion]:
    """Every known fusion by name, ours first."""
    importlib.import_module(OURS)
    return dict(_fusions)


def fusion_named(name: str) -> Fusion:
    """The fusion registered under a name.

    Raises:
        RegistrationError: there is none.
    """
    known = registered_fusions()
    if name not in known:
        fix = f"the known fusions are {', '.join(sorted(known))}"
        raise RegistrationError(f"there is no fusion named {name!r}", fix=fix)
    return known[name]


def unregister_fusion(name: str) -> None:
    """Forget a fusion."""
    fusion_named(name)
    del _fusions[name]
