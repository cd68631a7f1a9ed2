"""Real pretrained nets and real pictures, found through `FXQUANT_DATA`.

The folder holds `models.json`, `models/<name>.safetensors`, `imagenet/labels.csv`,
`imagenet/images/` and `cifar10.npz`. None of it belongs to the project; what needs it skips.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from tests.support.cifar_resnet import CifarResNet
from tests.support.vision import vision_models

ROOT = Path(__file__).resolve().parents[2]
REAL_NETS = ("tv_mobilenet_v2", "tv_squeezenet1_1", "cifar_resnet20")


def data_dir() -> Path | None:
    """The data folder, or None where there is none."""
    folder = Path(os.environ.get("FXQUANT_DATA", ROOT.parent / "shared" / "data"))
    return folder if (folder / "models.json").is_file() else None


def missing_reason() -> str | None:
    """Why real data cannot be used here, or None; for `pytest.mark.skipif` and benchmarks."""
    if data_dir() is None:
        return "no data: set FXQUANT_DATA to the folder that holds models.json"
    return None


@dataclass(frozen=True)
class RealNet:
    """A pretrained net with the preprocessing that it was trained with, ready to evaluate."""

    name: str
    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor


def real_net(name: str, limit: int = 300) -> RealNet:
    """One of `REAL_NETS` with `limit` labelled, preprocessed pictures in a seeded random order."""
    folder = data_dir()
    if folder is None:
        raise FileNotFoundError(missing_reason())
    row = json.loads((folder / "models.json").read_text())[name]
    model = _architecture(row["arch"])
    model.load_state_dict(load_file(folder / "models" / f"{name}.safetensors"))
    read = _cifar_pictures if row["task"] == "cifar10" else _imagenet_pictures
    pixels, labels = read(folder, limit, row["input"]["size"])
    return RealNet(name, model.eval(), _preprocessed(pixels, row), labels)


def training_pictures(name: str = "cifar_resnet20") -> tuple[torch.Tensor, torch.Tensor]:
    """5,000 labelled training pictures of CIFAR-10, preprocessed for a net."""
    return _archived("cifar10_train5k.npz", name)


def unseen_pictures(name: str = "cifar_resnet20") -> tuple[torch.Tensor, torch.Tensor]:
    """1,000 labelled pictures of CIFAR-10, none of them among `training_pictures`; a net that was
    trained on all of CIFAR-10 has seen 700 of them."""
    return _archived("cifar10.npz", name)


def _archived(file: str, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    folder = data_dir()
    if folder is None:
        raise FileNotFoundError(missing_reason())
    row = json.loads((folder / "models.json").read_text())[name]
    with np.load(folder / file) as archive:
        pixels, labels = torch.from_numpy(archive["x"]), torch.from_numpy(archive["y"])
    return _preprocessed(pixels, row), labels.long()


def _preprocessed(pixels: torch.Tensor, row: dict[str, Any]) -> torch.Tensor:
    mean = torch.tensor(row["input"]["mean"]).view(3, 1, 1)
    std = torch.tensor(row["input"]["std"]).view(3, 1, 1)
    return ((pixels.permute(0, 3, 1, 2) / 255.0 - mean) / std).contiguous()


def _architecture(arch: str) -> nn.Module:
    prefix = "torchvision.models."
    if arch.startswith(prefix):
        model: nn.Module = getattr(vision_models(), arch.removeprefix(prefix))(weights=None)
        return model
    return CifarResNet(blocks_per_stage=3)


def _shuffled(count: int) -> list[int]:
    """One fixed order: the published figures of other converters are on these very pictures."""
    return [int(index) for index in np.random.RandomState(0).permutation(count)]


def _cifar_pictures(folder: Path, limit: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Test pictures only: the net has seen the others."""
    with np.load(folder / "cifar10.npz") as archive:
        is_test = archive["is_test"]
        keep = [row for row in _shuffled(len(is_test)) if is_test[row]][:limit]
        return torch.from_numpy(archive["x"][keep]), torch.from_numpy(archive["y"][keep]).long()


def _imagenet_pictures(folder: Path, limit: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    with (folder / "imagenet" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [rows[index] for index in _shuffled(len(rows))[:limit]]
    pictures = [_picture(folder / "imagenet" / "images" / row["file"], size) for row in rows]
    return torch.stack(pictures), torch.tensor([int(row["label"]) for row in rows])


def _picture(path: Path, size: int, crop: int = 224) -> torch.Tensor:
    """The center `crop` of the stored file, then bilinear to `size`: uint8 [size, size, 3]."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    image = image.crop((left, top, left + crop, top + crop))
    if size != crop:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image))
