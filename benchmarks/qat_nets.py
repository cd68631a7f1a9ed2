"""The nets that training with rounding is judged by, each with its pictures.

    cifar_resnet20   pretrained, 270,000 weights; 300 test pictures that it has not seen
    mobile_cifar     blocks of MobileNetV3, batch norms with eps 1e-3, trained here; 1,000 pictures
    mobile_digits    the same blocks for handwritten digits of 8 by 8; needs no `FXQUANT_DATA`

A tenth of the training pictures is held out: settings are chosen on it, never on the test pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from examples.digits import Digits, digits
from examples.qat import Task, finetune
from tests.support.data import real_net, training_pictures, unseen_pictures

NETS = ("cifar_resnet20", "mobile_cifar", "mobile_digits")
NEED_DATA = ("cifar_resnet20", "mobile_cifar")


class Judged(NamedTuple):
    """A trained net with pictures to train on and to test, and some of the former held out."""

    task: Task
    held_out: Digits


class MobileBlock(nn.Module):
    """Expand, depthwise, squeeze and excite, project; x is added where it fits."""

    def __init__(self, width_in: int, width: int, stride: int = 1, expansion: int = 3) -> None:
        super().__init__()
        inner = width_in * expansion
        self.skips = stride == 1 and width_in == width
        self.expand = _layer(width_in, inner, 1)
        self.depthwise = _layer(inner, inner, 3, stride, groups=inner)
        self.squeeze, self.excite = nn.Conv2d(inner, 8, 1), nn.Conv2d(8, inner, 1)
        self.project = _layer(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        result: torch.Tensor = self.project(y * F.hardsigmoid(gate))
        return x + result if self.skips else result


def _layer(
    width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, 1, groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width, eps=1e-3, momentum=0.03))


class MobileNet(nn.Module):
    """A small MobileNetV3.

    Args:
        channels: of a picture.
        blocks: width and stride of each block.
    """

    def __init__(self, channels: int, blocks: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        widths = [16, *(width for width, _ in blocks)]
        self.stem = _layer(channels, 16, 3)
        self.blocks = nn.Sequential(
            *(
                MobileBlock(before, width, stride)
                for before, (width, stride) in zip(widths, blocks, strict=False)
            )
        )
        self.head = nn.Sequential(nn.Linear(widths[-1], 64), nn.Hardswish(), nn.Dropout(0.1))
        self.classes = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.hardswish(self.stem(x)))
        logits: torch.Tensor = self.classes(self.head(x.mean((2, 3))))
        return logits


FOR_DIGITS = ((16, 1), (16, 1), (16, 1))
FOR_CIFAR = ((24, 2), (24, 1), (40, 2), (40, 1), (40, 1))


def judged(net: str, limit: int, device: str = "cpu", epochs: float | None = None) -> Judged:
    """A trained net with its pictures.

    Args:
        net: one of `NETS`.
        limit: the most test pictures.
        device: where nets without stored weights are trained.
        epochs: how long they are trained, instead of long enough.

    Raises:
        FileNotFoundError: a net that needs data, without them.
    """
    torch.manual_seed(0)
    model: nn.Module
    if net == "mobile_digits":
        everything, unseen = digits()
        seen, held_out = parted(everything)
        model = fitted(MobileNet(1, FOR_DIGITS), seen, epochs or 14, device, mirrored=False)
    elif net == "mobile_cifar":
        seen, held_out = parted(Digits(*training_pictures()))
        unseen = Digits(*unseen_pictures())
        model = fitted(MobileNet(3, FOR_CIFAR), seen, epochs or 40, device, mirrored=True)
    else:
        found = real_net(net, limit)
        seen, held_out = parted(Digits(*training_pictures(net)))
        model, unseen = found.model, Digits(found.images, found.labels)
    test = Digits(unseen.images[:limit], unseen.labels[:limit])
    return Judged(Task(net, model, seen, test), held_out)


def parted(data: Digits) -> tuple[Digits, Digits]:
    """Nine tenths, and every tenth."""
    held = torch.arange(len(data.labels)) % 10 == 0
    return (
        Digits(data.images[~held], data.labels[~held]),
        Digits(data.images[held], data.labels[held]),
    )


def fitted(model: nn.Module, data: Digits, epochs: float, device: str, mirrored: bool) -> nn.Module:
    """A model trained from nothing, on the host again."""
    finetune(model.to(device), Digits(*(part.to(device) for part in data)), epochs, 0.1, mirrored)
    return model.cpu()
