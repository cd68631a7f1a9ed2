"""torchvision's models beside a torch of another build.

torchvision's compiled operators load only into the torch that they were built with, and without
them its import fails: it registers fakes for operators that nobody declared. The models need none
of them, so the missing names are declared here, without kernels, and the import is tried again.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the declarations live as long as this object


@functools.cache
def vision_models() -> ModuleType:
    """The module `torchvision.models`; ImportError where torchvision is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "failed to load image extension", and its kin
        try:
            return importlib.import_module("torchvision.models")
        except RuntimeError:
            _declare_missing()
            return importlib.import_module("torchvision.models")


def _declare_missing() -> None:
    global _library
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in MISSING:
        _library.define(schema)


SMALL_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": (
        "VisionTransformer",
        {
            "image_size": 32,
            "patch_size": 8,
            "num_layers": 2,
            "num_heads": 4,
            "hidden_dim": 32,
            "mlp_dim": 64,
        },
    ),
    "swin": (
        "SwinTransformer",
        {
            "patch_size": [4, 4],
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": [4, 4],
        },
    ),
}
"""The class in torchvision and its arguments, for pictures of 32 by 32."""


def small_transformer(name: str) -> nn.Module:
    """One of `SMALL_TRANSFORMERS`, freshly made."""
    kind, options = SMALL_TRANSFORMERS[name]
    return cast(nn.Module, getattr(vision_models(), kind)(**options))
