"""What `--input` says: `[name=]size,size,…[:dtype]`, one option for each input of the model.

    --input 1,3,224,224
    --input ids=1,128:int64 --input mask=1,128:bool

Inputs are positional unless named; named ones are passed as keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fxquant.errors import InputError

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
FORM = "write it as [name=]size,size,…[:dtype], e.g. 1,3,224,224 or ids=1,128:int64"


@dataclass(frozen=True)
class InputSpec:
    """One input of the model: its shape with the batch first, its dtype, its keyword if any."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    name: str | None = None

    def __str__(self) -> str:
        sizes = ",".join(str(size) for size in self.shape)
        dtype = "" if self.dtype is torch.float32 else f":{str(self.dtype).removeprefix('torch.')}"
        return f"{self.name}={sizes}{dtype}" if self.name else f"{sizes}{dtype}"

    @property
    def batch(self) -> int:
        """The size of the first dimension."""
        return self.shape[0]

    def random(self, generator: torch.Generator) -> torch.Tensor:
        """A value of this shape: normal for floats, zeros and ones for integers."""
        if self.dtype.is_floating_point:
            return torch.randn(self.shape, generator=generator).to(self.dtype)
        return torch.randint(0, 2, self.shape, generator=generator).to(self.dtype)


class Call(NamedTuple):
    """The arguments of one call of the model."""

    args: tuple[torch.Tensor, ...]
    kwargs: dict[str, Any]


def parse_input(text: str) -> InputSpec:
    """The input that a text describes.

    >>> parse_input("ids=1,128:int64")
    InputSpec(shape=(1, 128), dtype=torch.int64, name='ids')

    Raises:
        InputError: the text does not have the form.
    """
    head, _, dtype = text.partition(":")
    name, equals, sizes = head.rpartition("=")
    if dtype and dtype not in DTYPES:
        fix = f"the dtypes are {', '.join(DTYPES)}"
        raise InputError(f"--input {text}: there is no dtype {dtype!r}", fix=fix)
    if equals and not name.isidentifier():
        raise InputError(f"--input {text}: {name!r} is not the name of an argument", fix=FORM)
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        raise InputError(f"--input {text}: {sizes!r} is not a list of sizes", fix=FORM) from None
    if min(shape) < 1:
        raise InputError(f"--input {text}: every size must be at least 1", fix=FORM)
    return InputSpec(shape, DTYPES[dtype or "float32"], name or None)


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """All inputs of a command; either all have names or none has.

    Raises:
        InputError: none given, a malformed one, a name given twice, named and unnamed ones mixed.
    """
    if not texts:
        raise InputError(
            "the shape of the model's input is not known", fix="add --input 1,3,224,224"
        )
    specs = tuple(parse_input(text) for text in texts)
    names = [spec.name for spec in specs if spec.name]
    if names and len(names) < len(specs):
        unnamed = next(spec for spec in specs if not spec.name)
        raise InputError(
            f"--input {unnamed} has no name, and others have one", fix="name all inputs or none"
        )
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two inputs are named {name!r}", fix="give each input its own name")
    return specs


def as_call(specs: Sequence[InputSpec], values: Sequence[torch.Tensor]) -> Call:
    """Values in the order of the inputs as the arguments of a call."""
    if specs[0].name is None:
        return Call(tuple(values), {})
    return Call((), {str(spec.name): value for spec, value in zip(specs, values, strict=True)})


def random_call(specs: Sequence[InputSpec], seed: int = 0) -> Call:
    """Random arguments, the same for one seed."""
    generator = torch.Generator().manual_seed(seed)
    return as_call(specs, [spec.random(generator) for spec in specs])
