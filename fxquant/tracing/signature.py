"""How a traced graph is called: exactly like the user's model.

The graph itself takes a flat list of tensors and returns a flat tuple. A `Signature` binds a call
such as `model(x, options={"mask": m})` to that list, checks it, and gives the results the structure
that the model returned.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Mapping_
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from fxquant.errors import InputError
from fxquant.tracing.dynamic.dimensions import Dimension
from fxquant.tracing.structure import (
    Fixed,
    Leaf,
    Mapping,
    Record,
    Sequence,
    Structure,
    flatten,
    match,
    unflatten,
)

SizesByName = Mapping_[str, int]


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a tensor without its data; `names` are those of its dimensions."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    names: tuple[str | None, ...] = ()

    def __str__(self) -> str:
        sizes = ", ".join(name or str(size) for name, size in self.dimensions)
        return f"{str(self.dtype).removeprefix('torch.')}[{sizes}]"

    @property
    def dimensions(self) -> list[tuple[str | None, int]]:
        """Name, or None, and size in the example of each dimension."""
        return list(zip(self.names or (None,) * len(self.shape), self.shape, strict=True))

    def resized(self, sizes: SizesByName) -> tuple[int, ...]:
        """The shape at other sizes of the named dimensions."""
        return tuple(size if name is None else sizes[name] for name, size in self.dimensions)


@dataclass(frozen=True)
class Signature:
    """A model's call: its parameters, its tensors in and out, and how its results are built.

    Attributes:
        parameters: the parameters of the user's `forward`, without `self`.
        inputs: one spec for each tensor that goes in, in the order of the placeholders.
        outputs: one spec for each tensor that comes out, in the order of the output tuple.
        input_structure: the bound arguments, by parameter name.
        output_structure: what the model returned.
        any_batch: whether the first size of the tensors that go in may differ from the example's.
        dimensions: the named dimensions, whose sizes a call chooses.
    """

    parameters: inspect.Signature
    inputs: tuple[TensorSpec, ...]
    input_structure: Structure
    outputs: tuple[TensorSpec, ...] = ()
    output_structure: Structure = Fixed(None)
    any_batch: bool = False
    dimensions: tuple[Dimension, ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the tensors that go in."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the tensors that come out."""
        return tuple(spec.name for spec in self.outputs)

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The flat inputs of a call, checked against the traced ones.

        Raises:
            InputError: an argument is missing, or not what the model was traced with.
        """
        if any(isinstance(value, fx.Proxy) for value in (*args, *kwargs.values())):
            return (*args, *kwargs.values())
        bound = bind(self.parameters, args, kwargs)
        leaves: list[Any] = []
        assert isinstance(self.input_structure, Mapping)
        for name, child in zip(
            self.input_structure.keys, self.input_structure.children, strict=True
        ):
            leaves.extend(value for _, value in match(child, bound[name], name))
        for spec, value in zip(self.inputs, leaves, strict=True):
            check_tensor(spec, value, self.any_batch)
        if self.dimensions:
            self.sizes_of(leaves)
        return tuple(leaves)

    def sizes_of(self, leaves: Iterable[torch.Tensor]) -> dict[str, int]:
        """The sizes that the inputs of a call give to the named dimensions.

        Raises:
            InputError: one name has two sizes, or a size is out of bounds.
        """
        known = {dimension.name: dimension for dimension in self.dimensions}
        found: dict[str, int] = {}
        for spec, value in zip(self.inputs, leaves, strict=True):
            for (name, _), size in zip(spec.dimensions, value.shape, strict=True):
                if name is None:
                    continue
                if found.setdefault(name, size) != size:
                    what = f"{name} is {found[name]} and, in {spec.name}, {size}"
                    raise InputError(what, fix="give inputs that agree")
                if not known[name].holds(size):
                    what = f"input {spec.name}: {name} is {size}"
                    raise InputError(what, fix=f"{name} can be {known[name].bounds}")
        return found

    def unflatten(self, results: Any) -> Any:
        """The results of the graph in the structure that the model returns."""
        if any(isinstance(value, fx.Proxy) for value in results):
            return results
        return unflatten(self.output_structure, results)

    def respecified(self, **changes: Any) -> Signature:
        """The same call with these fields of every tensor's spec, in and out, changed."""
        inputs, outputs = (
            tuple(replace(spec, **changes) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        return replace(self, inputs=inputs, outputs=outputs)

    def fake_inputs(self) -> tuple[torch.Tensor, ...]:
        """Inputs without data, for shape propagation."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True):
            return tuple(
                torch.empty(spec.shape, dtype=spec.dtype, device=spec.device)
                for spec in self.inputs
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        return self


def check_tensor(spec: TensorSpec, value: Any, any_batch: bool = False) -> None:
    """Refuse an input that the traced graph was not made for.

    Raises:
        InputError: not a tensor, or another shape or dtype.
    """
    if not isinstance(value, torch.Tensor):
        raise InputError(f"input {spec.name} is a {type(value).__qualname__}, not a tensor {spec}")
    free = int(any_batch and value.dim() == len(spec.shape) > 0 and value.shape[0] > 0)
    pairs = list(zip(spec.dimensions, value.shape, strict=False))[free:]
    fits = all(name is not None or size == wanted for (name, wanted), size in pairs)
    if value.dim() != len(spec.shape) or not fits:
        raise InputError(
            f"input {spec.name} has shape {list(value.shape)}, but the model was traced with "
            f"[{str(spec).partition('[')[2]}",
            fix="pass that shape, trace with inputs of the new one, or give dynamic_shapes=",
        )
    if value.dtype != spec.dtype:
        raise InputError(
            f"input {spec.name} has dtype {value.dtype}, but the model was traced with "
            f"{spec.dtype}",
            fix=f"convert it: {spec.name}.to({spec.dtype})",
        )


def bind(
    parameters: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by parameter name, defaults filled in.

    Raises:
        InputError: an argument is missing, unknown or given twice.
    """
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{error} in a call of the model, forward{parameters}") from None
    bound.apply_defaults()
    return bound.arguments


def parameters_of(forward: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a bound `forward`, without annotations (which may not pickle)."""
    signature = inspect.signature(forward)
    empty = inspect.Parameter.empty
    plain = [value.replace(annotation=empty) for value in signature.parameters.values()]
    return signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)


def collect(value: Any, root: str) -> tuple[Structure, list[tuple[str, torch.Tensor]]]:
    """A value's structure and its tensors, named by their place below `root`."""
    leaves: list[tuple[str, torch.Tensor]] = []

    def add(name: str, tensor: torch.Tensor) -> int:
        leaves.append((name, tensor))
        return len(leaves) - 1

    return flatten(value, root, add), leaves


def collect_arguments(
    bound: dict[str, Any],
) -> tuple[Structure, list[tuple[str, torch.Tensor]]]:
    """The structure of a bound call and its tensors."""
    leaves: list[tuple[str, torch.Tensor]] = []

    def add(name: str, tensor: torch.Tensor) -> int:
        leaves.append((name, tensor))
        return len(leaves) - 1

    children = tuple(flatten(value, name, add) for name, value in bound.items())
    return Mapping(dict, tuple(bound), children), leaves


def specs(
    named: Iterable[tuple[str, torch.Tensor]], prefix: str = "input"
) -> tuple[TensorSpec, ...]:
    """Specs with names made unique and valid as identifiers.

    >>> specs([("x.0", torch.zeros(2)), ("x.0", torch.zeros(2))])[1].name
    'x_0_1'
    """
    taken: set[str] = set()
    result = []
    for wanted, tensor in named:
        stem = re.sub(r"\W", "_", wanted).strip("_") or "value"
        stem = f"{prefix}_{stem}" if stem[0].isdigit() else stem
        name, number = stem, 0
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        result.append(TensorSpec(name, tuple(tensor.shape), tensor.dtype, tensor.device))
    return tuple(result)


def output_name(name: str, structure: Structure) -> str:
    """`output.logits` is named `logits` where the model returns a dict or a dataclass."""
    named = isinstance(structure, Mapping | Record) or (
        isinstance(structure, Sequence) and hasattr(structure.kind, "_fields")
    )
    return name.removeprefix("output.") if named and not isinstance(structure, Leaf) else name
