"""Calibration data of a command: a folder of pictures, or arrays in .npz, .npy or .safetensors.

Arrays hold samples along the first dimension. What they may be is decided by dtype, never guessed
from the numbers:

    uint8, for a float input of 4 dimensions    pictures, [n, height, width, channels] or
                                                [n, height, width]: scaled and normalized
    anything else                               the model's input as it is, [n, *input shape]

At most `limit` samples are used, spread evenly over the file or folder (whose order is often by
class). Pictures and .npy files are read as they are asked for, the other files at once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from fxquant.cli.input_spec import Call, InputSpec, as_call
from fxquant.cli.pictures import MODES, Preprocessing, picture_files, read_picture
from fxquant.errors import CalibrationError

Source = Callable[[Sequence[int]], torch.Tensor]  # numbers of samples → those samples, stacked
FORM = "give a folder of pictures, or an .npz, .npy or .safetensors file"


@dataclass(frozen=True)
class CalibrationData:
    """Calls of the model, read as they are asked for; iterates any number of times.

    Attributes:
        specs: the model's inputs.
        sources: where the samples of each input come from.
        rows: which samples are used, in whole batches.
        description: what the data are, for the summary.
    """

    specs: tuple[InputSpec, ...]
    sources: tuple[Source, ...]
    rows: tuple[int, ...]
    description: str

    def __len__(self) -> int:
        return len(self.rows) // self.specs[0].batch

    def call(self, number: int) -> Call:
        """One batch as the arguments of a call."""
        batch = self.specs[0].batch
        rows = self.rows[number * batch : (number + 1) * batch]
        return as_call(self.specs, [source(rows) for source in self.sources])

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...] | dict[str, Any]]:
        for number in range(len(self)):
            call = self.call(number)
            yield call.kwargs or call.args


def open_calibration_data(
    path: Path, specs: Sequence[InputSpec], preprocessing: Preprocessing, limit: int
) -> CalibrationData:
    """The data at a path for a model with these inputs.

    Raises:
        CalibrationError: there is nothing, too little, or another shape or dtype than the inputs'.
    """
    if path.is_dir():
        count, sources = _pictures(path, specs, preprocessing)
        what = "pictures"
    elif path.is_file():
        count, sources = _arrays(path, specs, preprocessing)
        what = "samples"
    else:
        raise CalibrationError(f"there is no calibration data at {path}", fix=FORM)
    rows = spread(count, limit, specs[0].batch)
    if not rows:
        raise CalibrationError(
            f"{path} holds {count} {what}, less than one batch of {specs[0].batch}",
            fix="give more samples, or make the batch of --input smaller",
        )
    return CalibrationData(
        tuple(specs), tuple(sources), rows, f"{len(rows)} of {count} {what} from {path}"
    )


def spread(count: int, limit: int, batch: int) -> tuple[int, ...]:
    """Up to `limit` of `count` numbers, evenly spread, in whole batches.

    >>> spread(10, 5, 1)
    (0, 2, 4, 6, 8)
    >>> spread(7, 100, 3)
    (0, 1, 2, 3, 4, 5)
    >>> spread(2, 100, 3)
    ()
    """
    used = min(count, limit) // batch * batch
    return tuple(number * count // used for number in range(used))


def _pictures(
    folder: Path, specs: Sequence[InputSpec], preprocessing: Preprocessing
) -> tuple[int, list[Source]]:
    spec = specs[0]
    if len(specs) > 1 or len(spec.shape) != 4 or spec.shape[1] not in MODES:
        inputs = " ".join(f"--input {item}" for item in specs)
        raise CalibrationError(
            f"a folder of pictures fits one input [n, 3 or 1, height, width], not {inputs}",
            fix="give the calibration data as an .npz file",
        )
    files = picture_files(folder)
    _, channels, height, width = spec.shape

    def read(rows: Sequence[int]) -> torch.Tensor:
        pictures = [
            read_picture(files[row], channels, height, width, preprocessing) for row in rows
        ]
        return torch.stack(pictures).to(spec.dtype)

    return len(files), [read]


def _arrays(
    path: Path, specs: Sequence[InputSpec], preprocessing: Preprocessing
) -> tuple[int, list[Source]]:
    arrays = _chosen(path, _open_arrays(path), specs)
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        shown = ", ".join(str(len(array)) for array in arrays)
        raise CalibrationError(f"the arrays of {path} hold different numbers of samples: {shown}")
    sources = [
        _source(path, array, spec, preprocessing) for array, spec in zip(arrays, specs, strict=True)
    ]
    return counts.pop(), sources


def _open_arrays(path: Path) -> Mapping[str, Any]:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise CalibrationError(f"{path} is not a kind of calibration data that is known", fix=FORM)
    try:
        return reader(path)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}", fix=FORM) from error


def _read_npz(path: Path) -> Mapping[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_npy(path: Path) -> Mapping[str, np.ndarray]:
    return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}


def _read_safetensors(path: Path) -> Mapping[str, np.ndarray]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


READERS: Mapping[str, Callable[[Path], Mapping[str, np.ndarray]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
}


def _chosen(
    path: Path, arrays: Mapping[str, np.ndarray], specs: Sequence[InputSpec]
) -> list[np.ndarray]:
    """One array for each input: by name, else `x` for a single input, else in the file's order."""
    names = [str(spec.name) for spec in specs]
    if all(name in arrays for name in names):
        return [arrays[name] for name in names]
    if len(specs) == 1 and arrays:
        return [arrays.get("x", next(iter(arrays.values())))]
    if specs[0].name is None and len(arrays) == len(specs):
        return list(arrays.values())
    wanted = ", ".join(names) if specs[0].name else f"{len(specs)} arrays"
    raise CalibrationError(
        f"{path} holds {', '.join(arrays) or 'nothing'}; the model's inputs need {wanted}",
        fix="save one array for each input, under the input's name",
    )


def _source(path: Path, array: np.ndarray, spec: InputSpec, preprocessing: Preprocessing) -> Source:
    sample = spec.shape[1:]
    if array.dtype == np.uint8 and spec.dtype.is_floating_point and len(spec.shape) == 4:
        pixels = array[..., np.newaxis] if array.ndim == 3 else array
        _check_shape(path, array, (pixels.shape[-1], *pixels.shape[1:3]), sample)
        return lambda rows: preprocessing.normalize(pixels[list(rows)]).to(spec.dtype)
    if spec.dtype.is_floating_point != np.issubdtype(array.dtype, np.floating):
        raise CalibrationError(
            f"{path} holds {array.dtype} values {list(array.shape)}, the input is {spec}",
            fix="save values of the input's dtype; uint8 pictures as [n, height, width, channels]",
        )
    _check_shape(path, array, array.shape[1:], sample)
    return lambda rows: torch.from_numpy(np.array(array[list(rows)])).to(spec.dtype)


def _check_shape(
    path: Path, array: np.ndarray, found: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    if tuple(found) == tuple(wanted):
        return
    fix = "save samples of the input's shape along the first dimension"
    if array.dtype != np.uint8 and len(found) == 3 and (found[2], *found[:2]) == tuple(wanted):
        fix = "the samples are channels-last: transpose them, x.transpose(0, 3, 1, 2)"
    raise CalibrationError(
        f"{path} holds samples {list(found)} ({array.dtype} {list(array.shape)}), "
        f"the input needs {list(wanted)}",
        fix=fix,
    )
