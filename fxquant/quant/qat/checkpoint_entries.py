"""State that a checkpoint of the float model does not have."""

from __future__ import annotations

from typing import Any

from torch import nn


class OptionalState(nn.Module):
    """A module that keeps its state where a checkpoint has nothing for it.

    So `prepared.load_state_dict(original.state_dict())` works as it is. `load_checkpoint` is
    stricter: of a prepared model's checkpoint it wants all or nothing.
    """

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            super()._load_from_state_dict(state_dict, prefix, *rest)
