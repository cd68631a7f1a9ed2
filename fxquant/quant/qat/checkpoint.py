"""Checkpoints into prepared models: of the float model, or of a prepared one.

    load_checkpoint(prepared, "float.pt")      weights and statistics; ranges stay as they are
    load_checkpoint(prepared, "epoch3.pt")     everything, and training goes on where it was

Parameters of a prepared model have the names of the float model, so `load_state_dict` works too.
This adds: wrappers' prefixes, tensors that only other modes of the model read, and an error that
lists all that does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fxquant.errors import InputError, Problem
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from fxquant.quant.qat.preparation import UNREAD

PREFIXES = ("module.", "_orig_mod.")
EXTRA = "_extra_state"
SHOWN = 8
"""Entries of one kind that an error lists."""


def load_checkpoint(prepared: nn.Module, checkpoint: str | Path | Mapping[str, Any]) -> nn.Module:
    """Load a checkpoint of the float model or of a prepared model.

    Args:
        prepared: what `prepare_qat` returned.
        checkpoint: a state dict, or a file of `torch.save` or safetensors that holds one.

    Returns:
        The prepared model itself.

    Raises:
        InputError: the checkpoint is of another model: missing, unexpected and mismatched entries.
    """
    given = _without_prefixes(_read(checkpoint))
    wanted = prepared.state_dict()
    unread = set(getattr(prepared, "meta", {}).get(UNREAD, ()))
    given = {name: value for name, value in given.items() if name not in unread}
    quantizers = set(_quantizer_entries(prepared))
    optional = {name for name in wanted if name.endswith(f".{EXTRA}") or name == EXTRA}
    if not quantizers & given.keys():
        optional |= quantizers
    problems = list(_problems(given, wanted, optional))
    if problems:
        raise InputError(
            f"the checkpoint does not fit the model: {len(problems)} entries differ",
            fix="prepare the model and the configuration that the checkpoint comes from",
            problems=_shortened(problems),
        )
    prepared.load_state_dict(given, strict=False)
    return prepared


def _read(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(checkpoint, Mapping):
        return checkpoint
    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise InputError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _without_prefixes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Without what `DistributedDataParallel`, EMA and `torch.compile` put before every name."""
    found = {name: value for name, value in given.items() if name != "n_averaged"}
    for prefix in PREFIXES * 2:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _quantizer_entries(prepared: nn.Module) -> Iterator[str]:
    for path, module in prepared.named_modules():
        if isinstance(module, TrainedFakeQuantize):
            yield from module.state_dict(prefix=f"{path}.")


def _problems(
    given: Mapping[str, Any], wanted: Mapping[str, Any], optional: set[str]
) -> Iterator[Problem]:
    for name in wanted:
        if name not in given and name not in optional:
            yield Problem(f"missing: {name} {_shape(wanted[name])}")
    for name, value in given.items():
        if name not in wanted:
            yield Problem(f"unexpected: {name} {_shape(value)}")
        elif _shape(value) != _shape(wanted[name]):
            yield Problem(
                f"mismatched: {name} is {_shape(value)}, the model has {_shape(wanted[name])}"
            )


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _shortened(problems: list[Problem]) -> Iterator[Problem]:
    for kind in ("mismatched", "unexpected", "missing"):
        found = [problem for problem in problems if problem.what.startswith(kind)]
        yield from found[:SHOWN]
        if len(found) > SHOWN:
            yield Problem(f"{kind}: {len(found) - SHOWN} more")
