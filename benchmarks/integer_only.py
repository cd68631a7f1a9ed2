"""What does a promise of integers only cost nets with layer norm, attention, group norm and GELU?

    python -m benchmarks.integer_only [--nets transformer,convnext,group_norm]

Each net is trained on handwritten digits. The files are run in LiteRT (XNNPACK) on digits that
neither training nor calibration saw, and compared with the float net and with the simulation.
Around float operators, a value half-way between two steps may fall to either side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fxquant as fq
from benchmarks.digit_nets import Transformer
from benchmarks.execution import FileProgram, agreement, run_all, sqnr
from examples.digits import digits, fit

CALIBRATION, EVALUATED = 128, 200


class ConvNextBlock(nn.Module):
    """Depthwise convolution, layer norm over channels, two dense layers, a scale and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out: Tensor = x + (self.mlp(y) * self.scale).permute(0, 3, 1, 2)
        return out


def convnext() -> nn.Module:
    """A stem of patches and two blocks."""
    blocks = (ConvNextBlock(24), ConvNextBlock(24))
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(24), nn.Linear(24, 10))
    return nn.Sequential(nn.Conv2d(1, 24, 2, 2), *blocks, *pooled)


def group_norm() -> nn.Module:
    """Convolutions with group norm and SiLU."""

    def layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        norm = nn.GroupNorm(4, outputs)
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.SiLU()]

    layers = (*layer(1, 16, 1), *layer(16, 32, 2), *layer(32, 32, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


NETS: Mapping[str, tuple[Callable[[], nn.Module], int, str]] = {
    "transformer": (Transformer, 40, "layer_norm"),
    "convnext": (convnext, 15, "layer_norm"),
    "group_norm": (group_norm, 10, "group_norm"),
}
"""What makes a net, how many epochs it is trained, and its normalization."""


class Row(NamedTuple):
    """The figures of one net in one form; fractions and dB."""

    net: str
    form: str
    floats: int
    top1: float
    agreement: float
    sqnr_db: float
    verified: float


def forms(norm: str) -> Mapping[str, Mapping[str, Any]]:
    """The options of each form."""
    wide = fq.QuantConfig(rules=(fq.Rule("int16x8", op=norm),))
    return {
        'quantize="int8"': {"quantize": "int8"},
        'require="int8"': {"require": "int8"},
        "int8, norms of int16": {"quantize": wide, "require": "int16x8", "io_dtype": "int8"},
        'require="int16x8"': {"require": "int16x8"},
    }


def measure(name: str) -> list[Row]:
    """One net in every form."""
    make, epochs, norm = NETS[name]
    seen, unseen = digits()
    torch.manual_seed(0)
    model = fit(make(), seen, epochs)
    calibration = list(seen.images[:CALIBRATION].split(1))
    images = list(unseen.images[:EVALUATED].split(1))
    wanted = run_all(model, images)
    rows = []
    for form, options in forms(norm).items():
        lowered = fq.compile(
            model, (images[0],), calibration=calibration, progress=False, **options
        )
        report = fq.verify(lowered, images[:4], kernels="xnnpack")
        with FileProgram(lowered) as program:
            found = run_all(program, images)
        right = found.argmax(1) == unseen.labels[:EVALUATED]
        floats = sum(row.type.startswith("f32") for row in report.rows)
        figures = (float(right.double().mean()), agreement(wanted, found), sqnr(wanted, found))
        rows.append(Row(name, form, floats, *figures, report.agreement))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """One line for each net and form."""
    result = Table(title="integers only, run by LiteRT (XNNPACK)", title_justify="left")
    result.add_column("net")
    result.add_column("form")
    headings = "float operators|top-1|as float|SQNR|values as simulated"
    for heading in headings.split("|"):
        result.add_column(heading, justify="right")
    for row in rows:
        percents = (f"{row.top1:.1%}", f"{row.agreement:.1%}", f"{row.sqnr_db:.1f} dB")
        result.add_row(row.net, row.form, str(row.floats), *percents, f"{row.verified:.2%}")
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default=",".join(NETS))
    given = parser.parse_args(arguments)
    rows = [row for name in given.nets.split(",") for row in measure(name)]
    Console(width=120).print(table(rows))
    return rows


if __name__ == "__main__":
    main()
