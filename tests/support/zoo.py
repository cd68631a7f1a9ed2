"""The convolutional nets that every change is tried on: random weights, realistic batch norms.

A freshly made net has batch norms that do nothing (mean 0, variance 1), so its activations explode
or die with depth and folding the norms changes no number. Two seeded batches in train mode give
each norm the statistics of its real input, which is what a trained net has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.support.vision import vision_models

WARM_BATCHES = 2
WARM_BATCH_SIZE = 4


@dataclass(frozen=True)
class Entry:
    """One net: the name of its factory in torchvision, its input size, the factory's options."""

    name: str
    size: int = 224
    options: tuple[tuple[str, Any], ...] = ()

    def build(self) -> nn.Module:
        """The untouched net; the caller seeds."""
        factory = cast(Callable[..., nn.Module], getattr(vision_models(), self.name))
        return factory(weights=None, **dict(self.options))


ZOO: tuple[Entry, ...] = (
    Entry("resnet18"),
    Entry("resnet50"),
    Entry("mobilenet_v2"),
    Entry("mobilenet_v3_small"),
    Entry("mobilenet_v3_large"),
    Entry("mnasnet1_0"),
    Entry("efficientnet_b0"),
    Entry("regnet_y_400mf"),
    Entry("squeezenet1_0"),
    Entry("shufflenet_v2_x1_0"),
    Entry("densenet121"),
    Entry("googlenet", options=(("init_weights", True),)),
    Entry("inception_v3", size=299, options=(("init_weights", True),)),
    Entry("vgg11_bn"),
    Entry("alexnet"),
)
NAMES = tuple(entry.name for entry in ZOO)


def entry_of(name: str) -> Entry:
    """The row of a net by name."""
    return next(entry for entry in ZOO if entry.name == name)


def zoo_model(name: str, *, seed: int = 0) -> nn.Module:
    """The net in eval mode, always the same for one seed."""
    entry = entry_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = entry.build()
        warm_batch_norms(model, (3, entry.size, entry.size))
    return model.eval()


def warm_batch_norms(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Sets the running statistics of all batch norms to those of a few random batches."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches, nothing of the initial values
    model.train()
    with torch.no_grad():
        for _ in range(WARM_BATCHES):
            model(torch.randn(WARM_BATCH_SIZE, *shape))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def random_images(name: str, count: int, *, seed: int) -> list[torch.Tensor]:
    """`count` inputs of batch 1 for a net, seeded one by one: `seed`, `seed + 1`, …"""
    size = entry_of(name).size
    return [_image(size, seed + index) for index in range(count)]


def _image(size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, size, size, generator=generator)
