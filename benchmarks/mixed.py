"""What does mixed precision cost to find on large nets, and does the file keep what was foreseen?

    python -m benchmarks.mixed [--nets tv_mobilenet_v2,vit_b_16] [--json mixed.json]

The sensitivity of every layer is measured exactly and estimated, in multiples of a plain forward
pass over the same pictures. Then precisions are chosen for a number of dB, judged on other
pictures, and the file is run by LiteRT on a third set. mobilenet_v2 has its real weights and
pictures where `FXQUANT_DATA` is; the transformers have random weights and features of the stream
that are large and constant, as trained ones do.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fxquant as fq
from benchmarks.execution import FileProgram, run_all, sqnr
from benchmarks.figures import write_json
from fxquant.mixed.sensitivity import SensitivityTable
from tests.support.data import missing_reason, real_net
from tests.support.vision import vision_models

SIZE = 64
"""Of the transformers' pictures."""

OUTLIER = 60.0
PROBES = 8


@dataclass(frozen=True)
class Net:
    """A net, its pictures for the search, the judge and LiteRT, and the dB to reach.

    Attributes:
        gain: dB above all int8.
    """

    name: str
    model: nn.Module
    images: Sequence[Tensor]
    gain: float


@dataclass(frozen=True)
class Row:
    """The figures of one net.

    Attributes:
        layers: that can be quantized.
        exact, estimated: time of the sensitivity table by that of plain forward passes.
        apart_db: median difference of the two.
        search_s: seconds of `auto_mixed_precision`.
        memory_mb: the most that the process held.
        int8_db: all int8, on the judge's pictures.
        asked_db, foreseen_db, judged_db, executed_db: what was asked for, what the simulation
            gives on the pictures of the search, what the judge's give, and LiteRT on others.
        chosen: precision and number of layers.
    """

    net: str
    layers: int
    forward_s: float
    exact: float
    estimated: float
    apart_db: float
    search_s: float
    memory_mb: float
    int8_db: float
    asked_db: float
    foreseen_db: float
    judged_db: float
    executed_db: float
    chosen: str


def build(name: str, count: int) -> Net:
    """One of the nets with three times `count` pictures."""
    if name.startswith("tv_"):
        net = real_net(name, 3 * count)
        return Net(name, net.model, net.images.split(1), 6.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"image_size": SIZE} if name.startswith("vit") else {}
        model: nn.Module = getattr(vision_models(), name)(weights=None, **options).eval()
        if name.startswith("vit"):
            nn.init.normal_(model.heads.head.weight, std=0.02)  # type: ignore[union-attr, arg-type]
            _add_outliers(model)
        images = torch.randn(3 * count, 3, SIZE, SIZE).split(1)
    return Net(name, model, images, 6.0)


@torch.no_grad()
def _add_outliers(model: nn.Module) -> None:
    """Two large, constant features of the stream that nothing behind the norms reads."""
    position = model.encoder.pos_embedding  # type: ignore[union-attr]
    position[..., 0] += OUTLIER  # type: ignore[index, operator]
    position[..., 1] -= OUTLIER  # type: ignore[index, operator]
    for norm in (each for each in model.modules() if isinstance(each, nn.LayerNorm)):
        norm.weight.mul_(OUTLIER * (2 / len(norm.weight)) ** 0.5)
        norm.weight[:2] = 0


def measure(name: str, count: int) -> Row:
    """Searches and runs one net."""
    net = build(name, count)
    data, judges, others = (net.images[i : i + count] for i in (0, count, 2 * count))
    others = others[:count]
    example = (data[0],)
    prepared = fq.calibrate(fq.prepare(net.model, example), data, progress=False)
    forward = _seconds(lambda: run_all(net.model, data))
    start = time.perf_counter()
    exact = fq.sensitivity(prepared, data)
    between = time.perf_counter()
    guessed = fq.sensitivity(prepared, data, probes=PROBES)
    end = time.perf_counter()
    int8 = sqnr(run_all(net.model, judges), run_all(fq.convert(prepared), judges))
    asked = round(int8 + net.gain, 1)
    start_search = time.perf_counter()
    config, report = fq.auto_mixed_precision(
        net.model,
        example,
        data,
        budget=fq.Budget(sqnr=asked),
        precisions=("int16x8", "float32"),
        held_out=judges,
        probes=PROBES,
    )
    search = time.perf_counter() - start_search
    lowered = fq.compile(
        net.model, example, quantize=config, calibration=data, progress=False, verify=False
    )
    with FileProgram(lowered) as program:
        executed = sqnr(run_all(net.model, others), run_all(program, others))
    counts = Counter(row.precision for row in report.rows)
    return Row(
        net=name,
        layers=len(exact),
        forward_s=forward / count,
        exact=(between - start) / forward,
        estimated=(end - between) / forward,
        apart_db=_apart(exact, guessed),
        search_s=search,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        int8_db=int8,
        asked_db=asked,
        foreseen_db=round(report.foreseen, 2),
        judged_db=round(report.after.sqnr, 2),
        executed_db=executed,
        chosen=", ".join(f"{number} {kind}" for kind, number in counts.most_common()),
    )


def _seconds(run: object) -> float:
    assert callable(run)
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _apart(exact: SensitivityTable, guessed: SensitivityTable) -> float:
    pairs = zip(exact, guessed, strict=True)
    apart = torch.tensor([abs(first.alone - second.alone) for first, second in pairs])
    return round(float(apart.median()), 2)


def table(rows: Sequence[Row]) -> Table:
    """One line a net."""
    result = Table(title="mixed precision of large nets", title_justify="left")
    result.add_column("net")
    headings = (
        "layers|forward|exact|estimated|apart|search|memory|int8|asked|foreseen|judged|LiteRT"
    )
    for heading in headings.split("|"):
        result.add_column(heading, justify="right")
    result.add_column("chosen")
    for row in rows:
        result.add_row(
            row.net,
            str(row.layers),
            f"{row.forward_s * 1e3:.0f} ms",
            f"{row.exact:.0f}x",
            f"{row.estimated:.0f}x",
            f"{row.apart_db:.1f} dB",
            f"{row.search_s:.0f} s",
            f"{row.memory_mb:.0f} MB",
            *(
                f"{value:.1f} dB"
                for value in (
                    row.int8_db,
                    row.asked_db,
                    row.foreseen_db,
                    row.judged_db,
                    row.executed_db,
                )
            ),
            row.chosen,
        )
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table; leaves out nets whose data are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default="tv_mobilenet_v2,vit_b_16,swin_t")
    parser.add_argument("--count", type=int, default=4, help="pictures for each of three uses")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    console, rows = Console(stderr=True), list[Row]()
    for name in given.nets.split(","):
        if name.startswith("tv_") and missing_reason():
            print(f"{name}: {missing_reason()}")
            continue
        with console.status(name):
            rows.append(measure(name, given.count))
    Console(width=200).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
