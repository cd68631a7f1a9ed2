"""Where the model of a command comes from: `package.module:factory`, and a file of weights.

The factory is a class, a function without required arguments, or a ready module.
`path/to/file.py:name` works too. Weights are a state dict, in safetensors or in the format of
`torch.save` (loaded with `weights_only=True`: a weights file never runs code).
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fxquant.errors import InputError

FORM = "name it as package.module:factory or path/to/file.py:factory"
NESTED_KEYS = ("state_dict", "model_state_dict", "model")  # where training loops keep the weights
COUNTER = "num_batches_tracked"  # of batch norms: many files lack it, and no result depends on it
SHOWN = 4
TORCH = str(Path(torch.__file__).parent)


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """The model in eval mode, with the weights of a file if one is given.

    Raises:
        InputError: the model cannot be found or made, or the weights do not fit it.
    """
    module_name, colon, attribute = spec.rpartition(":")
    if not colon or not attribute or not module_name:
        raise InputError(f"{spec!r} does not say where the model is", fix=FORM)
    model = _make(spec, _find(spec, _import(module_name), attribute))
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_function(spec: str) -> Callable[..., Any]:
    """A function by `package.module:function` or `path/to/file.py:function`.

    Raises:
        InputError: it cannot be found, or cannot be called.
    """
    module_name, _, attribute = spec.rpartition(":")
    if not attribute or not module_name:
        raise InputError(f"{spec!r} does not say where the function is", fix=FORM)
    found = _find(spec, _import(module_name), attribute)
    if not callable(found):
        raise InputError(f"{spec} is a {type(found).__name__}, not a function", fix=FORM)
    return found  # type: ignore[no-any-return]


def _import(name: str) -> ModuleType:
    # As `python -m` does, so that the code in the current folder is found.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise InputError(f"there is no module {name!r}", fix=FORM) from error
        raise failure_of(f"importing {name}", error) from error
    except Exception as error:
        raise failure_of(f"importing {name}", error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {path}", fix=FORM)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file", fix=FORM)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module


def _find(spec: str, module: ModuleType, attribute: str) -> Any:
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = [
                key for key, value in vars(module).items() if _makes_models(key, value, module)
            ]
            fix = f"it has {', '.join(public[:8])}" if public else FORM
            raise InputError(f"{spec}: the module has no {attribute!r}", fix=fix)
        found = getattr(found, name)
    return found


def _makes_models(key: str, value: object, module: ModuleType) -> bool:
    own = getattr(value, "__module__", None) == module.__name__
    return not key.startswith("_") and own and callable(value)


def _make(spec: str, found: Any) -> nn.Module:
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        what = f"{spec} is a {type(found).__name__}, neither a model nor a function that makes one"
        raise InputError(what, fix=FORM)
    try:
        model = found()
    except Exception as error:
        raise failure_of(f"making the model by {spec}()", error) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec}() returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def failure_of(what: str, error: Exception) -> InputError:
    """An error in the user's own code, with the last line of it that is not inside torch."""
    if isinstance(error, InputError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((each for each in reversed(frames) if TORCH not in each.filename), frames[-1])
    return InputError(
        f"{what} failed: {type(error).__name__}: {error}",
        source=f"{frame.filename}:{frame.lineno}  {frame.line or ''}".rstrip(),
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a file of weights into a model; every name must be there and fit.

    Raises:
        InputError: the file cannot be read, or has other names or shapes than the model.
    """
    state = _read_state(path)
    own = model.state_dict()
    if not set(state) & set(own) and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    misfits = [
        *(f"missing {key}" for key in own if key not in state and not key.endswith(COUNTER)),
        *(f"unknown {key}" for key in state if key not in own),
        *(
            f"{key} is {list(state[key].shape)}, the model has {list(value.shape)}"
            for key, value in own.items()
            if key in state and state[key].shape != value.shape
        ),
    ]
    if misfits:
        more = f", and {len(misfits) - SHOWN} more" if len(misfits) > SHOWN else ""
        raise InputError(
            f"the weights of {path} do not fit the model: {'; '.join(misfits[:SHOWN])}{more}",
            fix="give the file that was saved from this very model",
        )
    model.load_state_dict(dict(state), strict=False)


def _read_state(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"there is no file {path}", fix="give the weights' path after --weights")
    try:
        loaded = _load(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as weights: {str(error).splitlines()[0]}",
            fix="save them by safetensors.torch.save_file or torch.save(model.state_dict(), path)",
        ) from error
    for key in NESTED_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(map(torch.is_tensor, loaded.values())):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}, not a state dict",
            fix="save the weights by torch.save(model.state_dict(), path)",
        )
    return loaded


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
