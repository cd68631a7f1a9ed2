"""The small commands: `--version`, `passes`, and what an unknown one gets."""

from __future__ import annotations

import pytest

from fxquant.cli.main import main
from fxquant.passes.registry import registered_passes


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    captured = capsys.readouterr()
    code = end.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "--version")
    assert code == 0
    assert out.startswith("fxquant ")


def test_passes_lists_every_pass_with_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "passes")
    names = [line.partition("{")[0] for line in out.splitlines() if line and line[0] != " "]
    assert code == 0
    assert names == list(registered_passes())
    assert "establishes bn-folded" in out


def test_plan_of_a_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(capsys, "passes", "--pipeline", "ptq")
    assert out.splitlines()[0].split() == ["pass", "requires", "establishes", "semantics"]
    assert "insert-observers" in out
    _, out, _ = output(capsys, "passes", "--pipeline", "functionalize,dead-code")
    assert len(out.splitlines()) == 3


def test_unknown_pass_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "passes", "--pipeline", "no-such-pass")
    assert code == 2
    assert "PipelineError: there is no pass named 'no-such-pass'" in err
    assert output(capsys, "no-such-command")[0] == 2
