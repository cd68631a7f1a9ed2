"""Which rate, how many epochs, learned steps or not? Chosen on held-out training pictures.

    python -m benchmarks.qat_settings [--nets cifar_resnet20] [--device cuda]

Every candidate trains each net once; the least cross-entropy of the frozen graph on the pictures
held out wins. `--json` writes the winners for `benchmarks.qat_accuracy --settings`; `SETTINGS` are
those that it found.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import GraphModule

import fxquant as fq
from benchmarks.qat_nets import NEED_DATA, NETS, Judged, judged
from examples.digits import Digits
from examples.qat import BATCH, CALIBRATION, PRECISIONS, STATISTICS_FOLLOW, finetune
from tests.support.data import missing_reason

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Setting:
    """How long and how fast a net is trained, and whether its steps are learned."""

    epochs: float
    rate: float
    learned: str | None = None


RATES = {8: (0.0001, 0.0005, 0.002), 4: (0.001, 0.005, 0.02)}
EPOCHS = {8: 1.0, 4: 2.0}
LEARNED: dict[int, tuple[str | None, ...]] = {8: (None,), 4: (None, "lsq")}
SETTINGS: dict[tuple[str, int], Setting] = {
    ("cifar_resnet20", 8): Setting(1, 0.0001),
    ("cifar_resnet20", 4): Setting(2, 0.005, "lsq"),
    ("mobile_cifar", 8): Setting(1, 0.0005),
    ("mobile_cifar", 4): Setting(2, 0.001, "lsq"),
    ("mobile_digits", 8): Setting(1, 0.002),
    ("mobile_digits", 4): Setting(2, 0.02, "lsq"),
}


class Candidate(NamedTuple):
    """One training of one net."""

    net: str
    bits: int
    setting: Setting


class Figures(NamedTuple):
    """Of a program on some pictures."""

    top1: float
    loss: float


def trained_graph(
    given: Judged, config: fq.QuantConfig, setting: Setting, seed: int, device: str
) -> GraphModule:
    """Prepare, calibrate, train, freeze; the frozen graph is on the host."""
    torch.manual_seed(seed)
    data = Digits(*(part.to(device) for part in given.task.train))
    model = given.task.model.to(device)
    config = dataclasses.replace(config, learned=setting.learned)
    prepared = fq.prepare_qat(model, (data.images[:1],), config)
    fq.calibrate(prepared, data.images[:CALIBRATION].split(BATCH), progress=False)
    if setting.rate < STATISTICS_FOLLOW:  # a short touch: batch statistics would only add noise
        fq.qat.freeze_batch_norms(prepared)
    mirrored = given.task.name in NEED_DATA
    finetune(prepared, data, setting.epochs, setting.rate, mirrored)
    model.cpu()
    return fq.convert(prepared.cpu())


@torch.no_grad()
def figures(program: nn.Module, data: Digits) -> Figures:
    """Accuracy and mean cross-entropy."""
    logits = torch.cat([program(image) for image in data.images.split(1)])
    right = (logits.argmax(1) == data.labels).double().mean().item()
    return Figures(right, F.cross_entropy(logits, data.labels).item())


def try_out(candidate: Candidate, device: str, limit: int) -> Figures:
    """Train once; the figures on what was held out."""
    given = net_of(candidate.net)
    config = fq.QuantConfig(PRECISIONS[candidate.bits])
    graph = trained_graph(given, config, candidate.setting, 0, device)
    held = Digits(*(part[:limit] for part in given.held_out))
    return figures(graph, held)


_nets: dict[str, Judged] = {}  # of this process


def take(nets: dict[str, Judged]) -> None:
    """Make nets known in this process."""
    torch.set_num_threads(1)
    _nets.update(nets)


def net_of(net: str) -> Judged:
    """A net that this process took."""
    return _nets[net]


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], nets: dict[str, Judged], jobs: int
) -> list[Result]:
    """The results of independent work, from so many processes that know the nets."""
    take(nets)
    if jobs == 1:
        return list(map(work, items))
    with multiprocessing.get_context("spawn").Pool(jobs, take, (nets,)) as pool:
        return pool.map(work, items, chunksize=1)


def with_data(nets: str) -> list[str]:
    """The names in a list with commas between; without data, those that need none."""
    names = nets.split(",")
    if missing_reason() and not set(names).isdisjoint(NEED_DATA):
        print(missing_reason())
        names = [name for name in names if name not in NEED_DATA]
    return names


def candidates(nets: Sequence[str], bits: Sequence[int]) -> list[Candidate]:
    """All that is tried."""
    return [
        Candidate(net, width, Setting(EPOCHS[width], rate, learned))
        for net, width in itertools.product(nets, bits)
        for rate, learned in itertools.product(RATES[width], LEARNED[width])
    ]


def best(found: dict[Candidate, Figures]) -> dict[tuple[str, int], Setting]:
    """For every net and width the setting of least loss."""
    result: dict[tuple[str, int], Setting] = {}
    for candidate in sorted(found, key=lambda c: found[c].loss):
        result.setdefault((candidate.net, candidate.bits), candidate.setting)
    return result


def table(found: dict[Candidate, Figures]) -> Table:
    """All figures; winners are marked."""
    winners = best(found)
    result = Table(title="on held-out training pictures", title_justify="left")
    for heading in ("net", "weights", "ranges", "epochs", "rate", "top-1", "loss", ""):
        result.add_column(heading)
    for (net, bits, setting), (top1, loss) in found.items():
        mark = "*" if winners[net, bits] == setting else ""
        how = (setting.learned or "observed", f"{setting.epochs:g}", f"{setting.rate:g}")
        result.add_row(net, f"int{bits}", *how, f"{top1:.1%}", f"{loss:.4f}", mark)
    return result


def read_settings(path: Path) -> dict[tuple[str, int], Setting]:
    """Settings that `--json` wrote."""
    rows = json.loads(path.read_text())
    return {(row.pop("net"), row.pop("bits")): Setting(**row) for row in rows}


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, int], Setting]:
    """Prints the table and returns the winners."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="how many train side by side")
    parser.add_argument("--limit", type=int, default=500, help="of the pictures held out")
    parser.add_argument("--json", type=Path, help="write the winners there")
    given = parser.parse_args(arguments)
    nets = {net: judged(net, 1000, given.device) for net in with_data(given.nets)}
    waiting = candidates(list(nets), list(map(int, given.bits.split(","))))
    work = functools.partial(try_out, device=given.device, limit=given.limit)
    found = dict(zip(waiting, side_by_side(work, waiting, nets, given.jobs), strict=True))
    Console(width=110).print(table(found))
    winners = best(found)
    if given.json:
        rows = [
            {"net": net, "bits": bits, **dataclasses.asdict(setting)}
            for (net, bits), setting in winners.items()
        ]
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    return winners


if __name__ == "__main__":
    main()
