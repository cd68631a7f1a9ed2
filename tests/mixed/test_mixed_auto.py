"""Automatic mixed precision: budgets are kept by what is really built, and files agree with it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import InputError
from fxquant.mixed.budget import BudgetError
from tests.mixed.attention_nets import pictures, transformer

DATA = pictures(2)
EXAMPLE = (DATA[0][:1],)


@functools.cache
def model() -> nn.Module:
    return transformer(outliers=150, depth=1)


def chosen(budget: fq.Budget, **options: Any) -> tuple[fq.QuantConfig, Any]:
    return fq.auto_mixed_precision(model(), EXAMPLE, DATA, budget=budget, **options)


def test_a_collapsed_transformer_is_rescued_by_few_layers() -> None:
    config, report = chosen(fq.Budget(sqnr=30))
    assert report.met
    assert report.after.sqnr >= max(30, report.before.sqnr + 10)
    floats = [row for row in report.rows if row.precision == "float32"]
    assert 0 < len(floats) < len(report.rows) / 2
    assert report.after.size < 4 * report.before.size
    assert {rule.precision for rule in config.rules} == {"float32"}
    lowered = fq.compile(
        model(), EXAMPLE, quantize=config, calibration=DATA, progress=False, verify=False
    )
    with torch.no_grad():
        wanted = torch.cat([model()(x) for x in DATA[0].split(1)])
        found = torch.cat([lowered.graph_module(x) for x in DATA[0].split(1)])
    assert 20 * torch.log10(wanted.norm() / (found - wanted).norm()) > 20
    pytest.importorskip("ai_edge_litert")
    fq.verify(lowered, [EXAMPLE]).check()


def test_the_configuration_survives_yaml() -> None:
    config, _ = chosen(fq.Budget(size=7000))
    assert fq.QuantConfig.from_yaml(config.to_yaml()) == config


def test_a_limit_of_size_is_kept_and_used() -> None:
    _, report = chosen(fq.Budget(size=5500, spare="size"))
    assert report.met
    assert report.before.size < report.after.size <= 5500
    assert report.after.sqnr > report.before.sqnr + 3


def test_a_metric_of_the_user() -> None:
    seen: list[nn.Module] = []

    def agreement(graph: nn.Module) -> float:
        seen.append(graph)
        with torch.no_grad():
            pairs = [(model()(x), graph(x)) for batch in DATA for x in batch.split(1)]
        return sum(float(a.argmax() == b.argmax()) for a, b in pairs) / len(pairs)

    _, report = chosen(fq.Budget(metric=agreement, least=1.0))
    assert report.after.metric == 1.0
    assert report.met == (report.after.metric >= 1.0)
    assert seen


def test_nothing_changes_where_the_budget_is_kept_already() -> None:
    config, report = chosen(fq.Budget(sqnr=0.1))
    assert config == fq.QuantConfig()
    assert report.steps == 0 and report.before == report.after


def test_a_budget_that_rules_make_impossible() -> None:
    rules = (fq.Rule("int8", op="add"),)
    with pytest.raises(BudgetError, match=r"at least 60 dB are asked, 1\d\.\d dB are") as error:
        chosen(fq.Budget(sqnr=60), config=fq.QuantConfig(rules=rules))
    config, report = error.value.best
    assert not report.met
    assert "NOT kept" in report.render()
    assert config.rules[0] == rules[0]
    assert "add" not in {row.operator for row in report.rows}


def test_data_that_can_be_read_once() -> None:
    with pytest.raises(InputError, match="read only once"):
        fq.auto_mixed_precision(model(), EXAMPLE, iter(DATA), budget=fq.Budget(sqnr=30))


class Recurrent(nn.Module):
    """A recurrent layer, which is quantized step by step, and a dense one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.rnn(x)[0][:, -1])
        return result


def test_steps_of_a_recurrent_layer_count() -> None:
    torch.manual_seed(0)
    model, data = Recurrent().eval(), [torch.randn(1, 3, 6) for _ in range(4)]
    config, report = fq.auto_mixed_precision(model, (data[0],), data, budget=fq.Budget(sqnr=5.0))
    assert {row.layer for row in report.rows} == {"rnn", "head"}
    prepared = fq.calibrate(fq.prepare(model, (data[0],), config), data, progress=False)
    with torch.no_grad():
        wanted = torch.cat([model(x) for x in data])
        found = torch.cat([prepared(x) for x in data])
    sqnr = 20 * torch.log10(wanted.norm() / (wanted - found).norm())
    assert float(sqnr) == pytest.approx(report.after.sqnr, abs=0.1)
