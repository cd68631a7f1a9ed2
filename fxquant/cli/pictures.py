"""Pictures as model inputs: resize, center crop, scale to 0…1, mean and std.

    x = (pixel / 255 - mean) / std        channels first, float32

Mean 0 and std 1 unless the user says otherwise: what a net was trained with cannot be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fxquant.errors import CalibrationError, InputError, MissingDependency

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
)
KEPT = 7 / 8
BILINEAR = 2  # Pillow's number, so that the module imports without it
MODES = {1: "L", 3: "RGB"}  # channels → Pillow's name


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an input.

    Attributes:
        mean, std: one number for all channels or one for each, in units of pixel / 255.
        size: the shorter side after resizing, of which the center is cropped to the model's input;
            by default the crop keeps 7/8 of it. A picture of the input's very size stays as it is.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: int | None = None

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise InputError(f"--std {_numbers(self.std)}: every value must be above 0")

    def __str__(self) -> str:
        return f"(pixel / 255 - {_numbers(self.mean)}) / {_numbers(self.std)}"

    def normalize(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 [..., height, width, channels] to float [..., channels, height, width]."""
        channels = pixels.shape[-1]
        mean, std = self._per_channel("mean", channels), self._per_channel("std", channels)
        values = (torch.from_numpy(np.ascontiguousarray(pixels)) / 255.0 - mean) / std
        return values.movedim(-1, -3).contiguous()

    def _per_channel(self, name: str, channels: int) -> torch.Tensor:
        values: tuple[float, ...] = getattr(self, name)
        if len(values) not in (1, channels):
            raise InputError(
                f"--{name} has {len(values)} values, the pictures have {channels} channels",
                fix="give one value, or one for each channel",
            )
        return torch.tensor(values)


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder and its subfolders, in the order of their paths.

    Raises:
        CalibrationError: there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise CalibrationError(
            f"the folder {folder} holds no pictures",
            fix=f"the endings known are {', '.join(sorted(SUFFIXES))}",
        )
    return files


def read_picture(
    path: Path, channels: int, height: int, width: int, preprocessing: Preprocessing
) -> torch.Tensor:
    """One picture as [channels, height, width], resized so that the center crop fits.

    Raises:
        CalibrationError: the file is not a picture.
        MissingDependency: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependency(
            "reading pictures needs Pillow", fix="pip install 'fxquant[images]'"
        ) from None
    try:
        with Image.open(path) as file:
            picture = file.convert(MODES[channels])
    except OSError as error:
        fix = "mend or remove the file"
        raise CalibrationError(f"{path} cannot be read as a picture: {error}", fix=fix) from error
    pixels = np.array(_crop(picture, height, width, preprocessing.size))
    return preprocessing.normalize(pixels.reshape(height, width, channels))


def _crop(picture: Image.Image, height: int, width: int, shorter: int | None) -> Image.Image:
    if picture.size == (width, height) and shorter is None:
        return picture
    covering = max(height / picture.height, width / picture.width)
    scale = shorter / min(picture.size) if shorter else covering / KEPT
    if scale < covering:
        raise InputError(
            f"--size {shorter} leaves less of a picture than the input's {height}x{width}",
            fix=f"give --size {max(height, width)} or more",
        )
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    picture = picture.resize(size, resample=BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return picture.crop((left, top, left + width, top + height))
