"""The model as Python: write it, edit a line, and go on with the edited one to an int8 file.

train → model.py → an edit → load → prepare → calibrate → convert → lower → run in LiteRT

python -m examples.generated_model [folder for the files]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import fxquant as fq
from examples.digits import EPOCHS, Digits, LiteRTModel, digits, measure, train

EDITS = (("nn.ReLU()", "nn.ReLU6()"), ("F.relu(", "F.relu6("))
CALIBRATION = 128


def write(model: nn.Module, data: Digits, folder: Path) -> Path:
    """The trained model as `model.py`, and as `stubbed.py` what eager quantization wants."""
    example = (data.images[:1],)
    path = folder / "model.py"
    fq.compile(model, example, backend="source", output=path)
    traced = fq.trace(model, example)
    stubbed = fq.lower(traced, "source", options={"stage": "stubbed"})
    fq.verify(stubbed, [example]).check()
    stubbed.save(folder / "stubbed.py")
    return path


def edit(path: Path) -> int:
    """Make every ReLU end at 6, as a person would in an editor; the number of changed places."""
    text = path.read_text()
    count = sum(text.count(old) for old, _ in EDITS)
    for old, new in EDITS:
        text = text.replace(old, new)
    path.write_text(text)
    return count


def main(folder: Path = Path(), epochs: int = EPOCHS) -> float:
    """Runs the example; returns the accuracy of the int8 file."""
    torch.set_num_threads(1)
    train_data, test_data = digits()
    model = train(train_data, epochs)
    path = write(model, train_data, folder)
    print(path.read_text())
    before = measure(fq.load_model(path), test_data)
    changed = edit(path)
    edited = fq.load_model(path)
    after = measure(edited, test_data)

    int8_path = folder / "edited.int8.tflite"
    fq.compile(
        edited,
        (train_data.images[:1],),
        quantize="int8",
        calibration=train_data.images[:CALIBRATION].split(1),
        output=int8_path,
    )
    int8 = measure(LiteRTModel(int8_path), test_data)
    print(f"as written, torch           {before.accuracy:.2%}")
    print(f"{changed} places edited, torch     {after.accuracy:.2%}")
    print(f"the same, int8 in LiteRT    {int8.accuracy:.2%}")
    return int8.accuracy


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
