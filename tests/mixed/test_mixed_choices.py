"""Every precision is chosen where it is the right one, for each kind of budget, on other data.

The files are run by LiteRT: they compute what the simulation does, hold as many bytes as the report
says, and keep the budget on pictures that were seen neither in the search nor by the judge.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.backends.tflite.interpreter import LiteRT
from fxquant.backends.tflite.reader import read_bytes
from fxquant.mixed.budget import BudgetError
from fxquant.mixed.mixed_report import MixedReport
from tests.mixed.wide_nets import rows, wide

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

MODEL = wide()
DATA, JUDGES, OTHERS = rows(4), rows(4, seed=2), rows(4, seed=3)
EXAMPLE = (DATA[0][:1],)
PLAIN = fq.QuantConfig(equalize=False)
ALL = ("int8w4", "int4_weights", "dynamic", "int16x8", "float32")


def chosen(
    budget: fq.Budget, *precisions: str, **options: Any
) -> tuple[dict[str, str], MixedReport, Lowered]:
    """The precision of each layer, the report, and the program that was verified."""
    options = {"config": PLAIN, "held_out": JUDGES, **options}
    config, report = fq.auto_mixed_precision(
        MODEL, EXAMPLE, DATA, budget=budget, precisions=precisions, **options
    )
    program = fq.compile(
        MODEL, EXAMPLE, quantize=config, calibration=DATA, progress=False, verify=False
    )
    fq.verify(program, [(sample,) for sample in OTHERS[0].split(1)]).check()
    return {row.node: row.precision for row in report.rows}, report, program


@torch.no_grad()
def executed_sqnr(program: Lowered, data: list[Tensor] = OTHERS) -> float:
    """Signal to noise of the file in LiteRT against torch, dB."""
    samples = [sample for batch in data for sample in batch.split(1)]
    with LiteRT(program.to_bytes()) as runtime:
        found = [torch.from_numpy(*runtime.run([x.numpy()]).values()).clone() for x in samples]
    wanted, noisy = MODEL(torch.cat(samples)), torch.cat(found)
    return float(20 * torch.log10(wanted.norm() / (noisy - wanted).norm()))


def stored_bytes(program: Lowered) -> int:
    """Bytes of all constants in the file."""
    file = read_bytes(program.to_bytes())
    return sum(len(file.buffers[b]) for b in {t.buffer for t in file.main.tensors} if b)


def test_int16_where_it_is_quicker_than_float_and_float_where_it_is_not() -> None:
    """By LiteRT's table int16 is the quicker for dense layers, float for additions."""
    found, report, program = chosen(fq.Budget(sqnr=40), "int16x8", "float32")
    assert found == {
        "first": "int16x8",
        "second": "int16x8",
        "third": "int8",
        "add": "float32",
        "head": "int16x8",
    }
    assert report.before.sqnr < 15 and report.after.sqnr >= 40
    assert executed_sqnr(program, JUDGES) == pytest.approx(report.after.sqnr, abs=0.3)
    assert executed_sqnr(program) > 39
    assert stored_bytes(program) == report.after.size
    assert report.foreseen == pytest.approx(report.after.sqnr, abs=3)


def test_a_limit_of_time_that_float_would_break() -> None:
    limit = 9e-5
    found, report, program = chosen(fq.Budget(latency=limit), "int16x8", "float32")
    assert report.met and report.before.latency < report.after.latency <= limit
    assert {"int16x8", "float32"} <= set(found.values())
    assert executed_sqnr(program) > report.before.sqnr + 25
    with pytest.raises(BudgetError):
        chosen(fq.Budget(latency=limit, sqnr=100), "float32")


def test_four_bits_where_the_file_must_be_small() -> None:
    found, report, program = chosen(fq.Budget(size=5200), *ALL)
    assert report.met and stored_bytes(program) == report.after.size <= 5200 < report.before.size
    assert any(name in found.values() for name in ("int8w4", "int4_weights"))
    assert "float32" not in {found[name] for name in ("second", "third")}
    assert executed_sqnr(program) == pytest.approx(report.after.sqnr, abs=1.5)
    assert report.after.sqnr > report.before.sqnr + 15


def test_cheap_precisions_go_as_far_as_the_accuracy_bears() -> None:
    """Wherever eight bits do no harm, four are tried."""
    found, report, program = chosen(fq.Budget(sqnr=25, spare="size"), *ALL)
    assert report.after.sqnr >= 25 and executed_sqnr(program) > 24
    assert report.after.size < report.before.size
    assert {"int8w4", "int4_weights"} & set(found.values())


def test_dynamic_is_chosen_where_only_weights_may_be_narrow() -> None:
    """Beside float activations hybrid kernels are the quickest."""
    found, report, program = chosen(fq.Budget(sqnr=30), "dynamic", "float32")
    assert "dynamic" in found.values()
    assert report.after.sqnr >= 30 and executed_sqnr(program) > 29


def test_a_budget_that_nothing_keeps_names_the_best() -> None:
    with pytest.raises(BudgetError) as error:
        chosen(fq.Budget(size=2000), "int8w4", "int16x8")
    best = error.value.best
    assert str(error.value).splitlines() == [
        "no choice among int8w4, int16x8 keeps the budget; the best one found:",
        "  fix    ask for less, try more precisions, or free operators that rules name",
        f"  at most 2,000 bytes are asked, it takes {best.report.after.size:,}",
    ]
    assert {row.precision for row in best.report.rows} == {"int8w4", "int8"}
    with pytest.raises(BudgetError, match=r"at least 90 dB are asked, \d\d\.\d dB are reached"):
        chosen(fq.Budget(sqnr=90), "int16x8")
    with pytest.raises(BudgetError, match=r"at most 1e-06 ms are asked, it takes 3\.54e-05 ms"):
        chosen(fq.Budget(latency=1e-6), "int16x8")


def test_accuracy_and_size_together() -> None:
    _, report, program = chosen(fq.Budget(sqnr=30, size=5200), *ALL)
    assert report.after.sqnr >= 30 and stored_bytes(program) <= 5200
    with pytest.raises(BudgetError, match="at least 60 dB are asked, .* dB are reached") as error:
        chosen(fq.Budget(sqnr=60, size=5200), *ALL)
    assert error.value.best.report.after.size <= 5200


def test_other_data_judge() -> None:
    """The figures of the report are those of the held-out batches."""
    _, ours, _ = chosen(fq.Budget(sqnr=40), "int16x8", "float32", held_out=DATA)
    _, others, _ = chosen(fq.Budget(sqnr=40), "int16x8", "float32", held_out=OTHERS)
    assert ours.before.sqnr != others.before.sqnr
    assert ours.foreseen == others.foreseen
