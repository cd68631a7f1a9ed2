"""The benchmarks of the framework itself run on a small net: the runner's cost, validation."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks import framework_cost, validation

if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)


def test_the_cost_of_the_runner(capsys: pytest.CaptureFixture[str]) -> None:
    cost = framework_cost.main(["--model", "squeezenet1_0", "--rounds", "1"])
    assert 0 < cost.share < 0.05  # 0.01 is the goal, on a machine that does nothing else
    assert "goal: below 1%" in capsys.readouterr().out


def test_every_pass_keeps_its_word_on_a_net() -> None:
    rows = validation.main(["--models", "squeezenet1_0"])
    assert [(row.precision, row.failure) for row in rows] == [("float", ""), ("int8", "")]
    assert rows[0].error < 1e-4
