"""`fxquant bisect`, `fxquant replay` and `fxquant passes --plan`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.fx import GraphModule

from fxquant.passes import registry
from fxquant.passes.instruments import instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import register_pass
from fxquant.tracing import trace
from tests.cli.test_cli_commands import output
from tests.passes.planted import Crash, WrongSigmoid, net, pictures

PLACE = "tests.cli.test_cli_debugging"
X = pictures(1)[0]


def near(graph: GraphModule) -> bool:
    """Whether a stage still computes what the net does."""
    return bool((graph(*X) - net()(*X)).abs().max() < 0.05)


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "passes", "--plan", "ptq")
    assert code == 0
    assert out.splitlines()[0].split() == ["pass", "requires", "establishes", "semantics"]
    assert "insert-observers" in out


def test_bisect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("bisect", "tests.passes.planted:net", "--input", "1,3,8,8", "--predicate")
    code, out, _ = output(capsys, *given, f"{PLACE}:near")
    assert (code, out) == (0, "the predicate holds after every pass\n")
    monkeypatch.setitem(registry._passes, "wrong-sigmoid", WrongSigmoid)
    passes = ("--pipeline", "functionalize,dead-code,wrong-sigmoid")
    code, out, _ = output(capsys, *given, f"{PLACE}:near", *passes)
    assert out.splitlines()[0] == "after pass 3, wrong-sigmoid, the predicate fails"
    assert "node   %sigmoid = tanh(" in out
    code, _, err = output(capsys, *given, f"{PLACE}:nearer")
    assert code == 2
    assert "the module has no 'nearer'" in err
    assert output(capsys, *given, f"{PLACE}:PLACE")[0] == 2


def test_replay(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    register_pass(Crash)
    folder = tmp_path / "case"
    try:
        with pytest.raises(Exception, match="crash failed"), instruments(f"reproduce={folder}"):
            Pipeline((Crash(),))(trace(net(), (torch.zeros(1, 3, 8, 8),)))
        assert f"run `fxquant replay {folder}`" in capsys.readouterr().err
        code, _, err = output(capsys, "replay", str(folder))
    finally:
        registry._passes.pop("crash")
    assert code == 2
    assert "PassError: the pass crash failed: KeyError: 'no such node'" in err
    (folder / "pipeline.txt").write_text("functionalize\n")
    code, out, _ = output(capsys, "replay", str(folder))
    assert (code, out) == (0, f"the passes of {folder} run: the failure is gone\n")
