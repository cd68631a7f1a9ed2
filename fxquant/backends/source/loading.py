"""From a generated file back to a model: its class, and the weights that stand beside it."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fxquant.backends.source.weights import tensors_of
from fxquant.errors import InputError, Problem

Model = TypeVar("Model", bound=nn.Module)
SUFFIX = ".safetensors"
SHOWN = 8


def load_model(path: str | Path) -> nn.Module:
    """The model of a generated file, with its weights.

    Args:
        path: of the `.py`; its function `load` is called.

    Raises:
        InputError: there is no such file, it cannot be run, it has no `load`, or the weights beside
            it do not fit.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"there is no file {source}", fix="give the path of the generated .py")
    name = f"fxquant_generated_{source.stem}_{secrets.token_hex(4)}"
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise InputError(f"{source} is no Python file", fix="give the path of the generated .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = getattr(error, "lineno", None)
        where = source.name if line is None else f"{source.name}:{line}"
        raise InputError(f"{where} cannot be run: {type(error).__name__}: {error}") from error
    load = getattr(module, "load", None)
    model = load() if callable(load) else None
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{source} has no function `load` that returns a module",
            fix="keep the `load` that was written, or call the class yourself",
        )
    return model


def load_weights(model: Model, file: str | Path) -> Model:
    """Fill a model with the weights beside a file, and return it.

    Args:
        model: an instance of the file's class.
        file: the `.py`, or the `.safetensors` itself.

    Raises:
        InputError: tensors that are missing, too many or of another shape; all of them.
    """
    path = Path(file).with_suffix(SUFFIX)
    tensors = tensors_of(model)
    stored = _read(path)
    _check(model, path, tensors, stored)
    persistent = model.state_dict(keep_vars=True).keys()
    model.load_state_dict({k: v for k, v in stored.items() if k in persistent}, strict=False)
    _fill(model, {k: v for k, v in stored.items() if k not in persistent})
    return model


def load_constants(model: nn.Module, file: str | Path) -> None:
    """Fill only the buffers that are not part of the state dict; a constructor calls this.

    Raises:
        InputError: the file is not there.
    """
    persistent = model.state_dict(keep_vars=True).keys()
    names = [name for name, _ in model.named_buffers() if name not in persistent]
    _fill(model, _read(Path(file).with_suffix(SUFFIX), names))


def _read(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(
            f"there are no weights {path}",
            fix="keep the .safetensors beside the .py, under the same name",
        )
    try:
        with safe_open(path, framework="pt") as stored:
            known = set(stored.keys())
            wanted = known if names is None else known.intersection(names)
            return {name: stored.get_tensor(name) for name in sorted(wanted)}
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read: {error}", fix="write it again") from error


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Set buffers by name."""
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        module._buffers[last] = tensor


def _check(
    model: nn.Module, path: Path, tensors: dict[str, Tensor], stored: dict[str, Tensor]
) -> None:
    problems: list[Problem] = []
    found = {id(tensors[name]) for name in stored if name in tensors}
    for name, tensor in tensors.items():
        if name in stored:
            here, there = list(tensor.shape), list(stored[name].shape)
            if here != there and not name.endswith("_extra_state"):
                problems.append(Problem(f"{name} is {here}, the file has {there}"))
        elif id(tensor) not in found:
            problems.append(Problem(f"{name} is not in the file"))
    problems += [
        Problem(f"the model has no {name}, the file does") for name in stored if name not in tensors
    ]
    if problems:
        more = len(problems) - SHOWN
        shown = problems[:SHOWN] + ([Problem(f"and {more} more")] if more > 0 else [])
        raise InputError(
            f"the weights {path.name} do not fit {type(model).__name__}",
            problems=shown,
            fix="undo the change of names or shapes, or load the rest by load_state_dict yourself",
        )
