"""Every kind of calibration data, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from fxquant.cli.calibration_data import CalibrationData, open_calibration_data
from fxquant.cli.input_spec import parse_inputs
from fxquant.cli.pictures import Preprocessing
from fxquant.errors import CalibrationError, InputError


def opened(path: Path, *inputs: str, limit: int = 100, **options: Any) -> CalibrationData:
    return open_calibration_data(path, parse_inputs(inputs), Preprocessing(**options), limit)


def first(data: CalibrationData) -> torch.Tensor:
    value = next(iter(data))
    assert isinstance(value, tuple)
    tensor: torch.Tensor = value[0]
    return tensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        image = Image.new("RGB", (12, 8), (0, 51 * number, 255))
        image.save(tmp_path / f"class{number % 2}" / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_folder_of_pictures(folder: Path) -> None:
    data = opened(folder, "1,3,8,8", mean=(0.5,), std=(0.5, 0.5, 1.0))
    assert len(data) == 4
    assert first(data).shape == (1, 3, 8, 8)
    assert first(data)[0, :, 4, 4].tolist() == [-1.0, -1.0, 0.5]
    assert "4 of 4 pictures" in data.description


def test_data_can_be_read_twice(folder: Path) -> None:
    data = opened(folder, "2,3,8,8")
    assert len(data) == 2
    assert torch.equal(first(data), first(data))


def test_gray_pictures(folder: Path) -> None:
    assert first(opened(folder, "1,1,4,4")).shape == (1, 1, 4, 4)


def test_picture_of_the_very_size_is_not_resized(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = first(opened(tmp_path, "1,3,6,6"))[0]
    assert torch.equal(x, torch.from_numpy(pixels).permute(2, 0, 1) / 255.0)


def test_center_crop_of_a_given_shorter_side(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[2:6, 2:6] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert first(opened(tmp_path, "1,3,4,4", size=8)).min() == 1.0
    with pytest.raises(InputError, match="--size 3 leaves less of a picture"):
        first(opened(tmp_path, "1,3,4,4", size=3))


def test_limit_is_spread_over_the_folder(folder: Path) -> None:
    data = opened(folder, "1,3,8,8", limit=2)
    assert [float(x[0][0, 1, 0, 0]) for x in data if isinstance(x, tuple)] == pytest.approx(
        [0.0, 0.2]
    )


def test_damaged_picture(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    with pytest.raises(CalibrationError, match="bad.png cannot be read as a picture"):
        list(opened(folder, "1,3,8,8"))


@pytest.mark.parametrize("inputs", [("1,10",), ("1,7,8,8",), ("1,3,8,8", "1,3,8,8")])
def test_pictures_fit_one_image_input(folder: Path, inputs: tuple[str, ...]) -> None:
    with pytest.raises(CalibrationError, match="a folder of pictures fits one input"):
        opened(folder, *inputs)


def test_uint8_array_is_pictures(tmp_path: Path) -> None:
    pixels = np.full((5, 8, 6, 3), 51, dtype=np.uint8)
    np.savez(tmp_path / "d.npz", y=np.arange(5), x=pixels)
    data = opened(tmp_path / "d.npz", "1,3,8,6", mean=(0.1,), std=(0.1,))
    assert len(data) == 5
    torch.testing.assert_close(first(data), torch.ones(1, 3, 8, 6))


def test_gray_uint8_array_without_channels(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.full((5, 8, 6), 255, dtype=np.uint8))
    assert first(opened(tmp_path / "d.npy", "1,1,8,6")).eq(1).all()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_float_array_is_the_input_as_it_is(tmp_path: Path, suffix: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32)
    path = tmp_path / f"d{suffix}"
    save: dict[str, Any] = {
        ".npz": lambda: np.savez(path, whatever=x),
        ".npy": lambda: np.save(path, x),
        ".safetensors": lambda: save_file({"x": x}, path),
    }
    save[suffix]()
    data = opened(path, "2,3,4,4", mean=(9.0,))
    assert len(data) == 3
    assert torch.equal(first(data), torch.from_numpy(x[:2]))


def test_integer_input_keeps_its_integers(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.arange(8, dtype=np.int32).reshape(2, 4))
    value = first(opened(tmp_path / "d.npy", "1,4:int64"))
    assert value.dtype is torch.int64
    assert value.tolist() == [[0, 1, 2, 3]]


def test_named_inputs_are_found_by_name(tmp_path: Path) -> None:
    a, b = np.zeros((3, 4), np.float32), np.ones((3, 6), np.float32)
    np.savez(tmp_path / "d.npz", b=b, other=a, a=a)
    value = next(iter(opened(tmp_path / "d.npz", "a=1,4", "b=1,6")))
    assert isinstance(value, dict)
    assert {name: list(tensor.shape) for name, tensor in value.items()} == {
        "a": [1, 4],
        "b": [1, 6],
    }


def test_unnamed_inputs_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", np.zeros((3, 4), np.float32), np.ones((3, 6), np.float32))
    value = next(iter(opened(tmp_path / "d.npz", "1,4", "1,6")))
    assert isinstance(value, tuple)
    assert [list(tensor.shape) for tensor in value] == [[1, 4], [1, 6]]


@pytest.mark.parametrize(
    ("arrays", "inputs", "reason"),
    [
        ({"x": np.zeros((0, 3, 4, 4), np.float32)}, ["1,3,4,4"], "0 samples, less than one batch"),
        ({"x": np.zeros((3, 3, 4, 4), np.float32)}, ["4,3,4,4"], "less than one batch of 4"),
        ({"x": np.zeros((3, 4, 4, 3), np.float32)}, ["1,3,4,4"], "the samples are channels-last"),
        ({"x": np.zeros((3, 9), np.float32)}, ["1,3,4,4"], "the input needs .3, 4, 4."),
        ({"x": np.zeros((3, 5, 5, 3), np.uint8)}, ["1,3,4,4"], "the input needs .3, 4, 4."),
        ({"x": np.zeros((3, 4), np.int64)}, ["1,4"], "holds int64 values"),
        ({"x": np.zeros((3, 4), np.float32)}, ["1,4:int64"], "holds float32 values"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, ["a=1", "c=1"], "the model's inputs need a, c"),
        (
            {"a": np.zeros((3, 1)), "b": np.zeros((2, 1))},
            ["a=1,1", "b=1,1"],
            "different numbers of samples: 3, 2",
        ),
        ({}, ["1,4"], "holds nothing"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, arrays: dict[str, Any], inputs: list[str], reason: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(CalibrationError, match=reason):
        opened(tmp_path / "d.npz", *inputs)


def test_what_is_not_calibration_data(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"nothing")
    (tmp_path / "d.csv").write_text("1,2\n")
    (tmp_path / "empty").mkdir()
    cases = {
        "d.npz": "cannot be read",
        "d.csv": "not a kind of calibration data",
        "empty": "holds no pictures",
        "missing": "there is no calibration data",
    }
    for name, reason in cases.items():
        with pytest.raises(CalibrationError, match=reason):
            opened(tmp_path / name, "1,3,4,4")


def test_mean_and_std_must_fit_the_channels(folder: Path) -> None:
    with pytest.raises(InputError, match="--mean has 2 values, the pictures have 3 channels"):
        first(opened(folder, "1,3,8,8", mean=(0.5, 0.5)))
    with pytest.raises(InputError, match="--std 0: every value must be above 0"):
        Preprocessing(std=(0.0,))
