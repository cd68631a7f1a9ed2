"""Timing, dumps, differences, provenance, reproducers: what each shows, how it is turned on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fxquant as fq
from fxquant.errors import FormatError, InputError, PassError
from fxquant.passes import registry
from fxquant.passes.instruments import Diff, Reproduce, Timing, Validate, instruments
from fxquant.passes.instruments.active import BY_NAME, active_instruments
from fxquant.passes.instruments.diff import text_diff
from fxquant.passes.instruments.reproduce import read_reproducer
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import register_pass, registered_passes
from fxquant.tracing import trace
from tests.passes.planted import Crash, WrongSigmoid, net, pictures


@pytest.fixture
def planted_passes() -> Iterator[None]:
    registered_passes()
    register_pass(Crash)
    register_pass(WrongSigmoid)
    yield
    registry._passes.pop("crash")
    registry._passes.pop("wrong-sigmoid")


def test_every_stage_of_a_dump_runs_by_itself(tmp_path: Path) -> None:
    (x,) = pictures(1)[0]
    fq.compile(
        net(),
        (x,),
        quantize="int8",
        calibration=pictures(),
        progress=False,
        instruments=[f"dump={tmp_path}"],
    )
    files = sorted(tmp_path.glob("*.py"))
    names = [file.stem[4:] for file in files]
    assert names[:2] == ["input", "functionalize"]
    assert {"insert-observers", "freeze", "legalize-tflite", "assign-layout"} <= set(names)
    wanted = (tmp_path / "000-input.txt").read_text()
    assert wanted.startswith("graph(%x: f32[1,3,8,8]):")
    chosen = [files[0], files[names.index("insert-observers")], files[-1]]
    for file in chosen:
        done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("0 (1, 5) torch.float32\n", 0), done.stderr


def test_a_dumped_stage_computes_what_the_graph_does(tmp_path: Path) -> None:
    (x,) = pictures(1)[0]
    model = net()
    with instruments(f"dump={tmp_path}"):
        graph_module = Pipeline.default("float")(trace(model, (x,)))
    last = max(tmp_path.glob("*.py"))
    scope: dict[str, object] = {"__name__": "stage", "__file__": str(last)}
    exec(compile(last.read_text(), str(last), "exec"), scope)
    program = scope["Graph"]
    assert callable(program)
    (found,) = program()(x)
    assert torch.equal(found, graph_module(x))


def test_a_dump_writes_a_weight_once(tmp_path: Path) -> None:
    with instruments(f"dump={tmp_path}"):
        Pipeline.default("float")(trace(net(), pictures(1)[0]))
    stored = [path.name for path in sorted(tmp_path.glob("*.safetensors"))]
    assert stored == ["000-input.safetensors", "004-fuse-conv-bn.safetensors"]


def test_a_diff_shows_only_what_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with instruments(Diff()):
        Pipeline.default("float")(trace(net(), pictures(1)[0]))
    shown = capsys.readouterr().err
    assert "--- before fuse-conv-bn\n+++ after fuse-conv-bn\n" in shown
    assert "-  %norm = BatchNorm2d @norm(%first)" in shown
    assert "before dead-code" not in shown
    fused = shown.partition("before fuse-conv-bn")[2].partition("---")[0]
    assert "%head" not in fused


def test_a_renamed_value_is_no_difference() -> None:
    before = "graph(%x: f32[1]):\n  %a = relu(%x) : f32[1]\n  return (%a)\n"
    assert text_diff(before, before.replace("%a", "%a_1"), "rename") == ""
    assert "+  %a = tanh(%x)" in text_diff(before, before.replace("relu", "tanh"), "swap")


def test_timing_shows_memory_and_counts_no_other_instrument() -> None:
    timing = Timing()
    with instruments(timing, Validate()):
        assert isinstance(active_instruments()[-1], Timing)
        Pipeline.default("float")(trace(net(), pictures(1)[0]))
    assert timing.table().splitlines()[0].split() == ["time", "nodes", "memory", "pass"]
    assert "MiB  functionalize" in timing.table()
    assert all(row.memory >= 0 for row in timing.rows)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_variable_turns_each_on(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not active_instruments()
    writes = name in {"dump", "diff", "reproduce"}
    monkeypatch.setenv(f"FXQUANT_{name.upper()}", str(tmp_path) if writes else "1")
    (found,) = active_instruments()
    assert type(found).__name__.lower() in {name, "timing"}
    Pipeline.default("float")(trace(net(), pictures(1)[0]))
    monkeypatch.setenv(f"FXQUANT_{name.upper()}", "0")
    assert not active_instruments()


def test_an_unknown_instrument() -> None:
    with pytest.raises(InputError, match="no instrument 'lent'\n  fix    the known ones are diff"):
        fq.convert(trace(net(), pictures(1)[0]), instruments=["lent"])


def test_a_node_says_where_it_comes_from() -> None:
    graph_module = Pipeline.default("float")(trace(net(), pictures(1)[0]))
    lines = fq.explain_node("first", graph_module).splitlines()
    assert lines[0].startswith("%first = conv2d(%x, @")
    assert lines[1].startswith("  from   planted.py:")
    assert lines[2].startswith("  made   functionalize, ")
    assert "fuse-conv-bn" in lines[2]
    with pytest.raises(InputError, match="the graph has no node named 'third'"):
        fq.explain_node("third", graph_module)
    with pytest.raises(InputError, match="pass the graph_module too"):
        fq.explain_node("first")


@pytest.mark.usefixtures("planted_passes")
@pytest.mark.parametrize("randomized", [False, True])
def test_a_crash_is_reproduced_from_its_folder(tmp_path: Path, randomized: bool) -> None:
    folder = tmp_path / "case"
    pipeline = Pipeline.default("float").append(Crash("lost"), "dead-code")
    watching = Reproduce(folder, randomized)
    model = net()
    with pytest.raises(PassError) as caught, instruments(watching):
        pipeline(trace(model, pictures(1)[0]))
    assert watching.written == [folder]
    assert (folder / "pipeline.txt").read_text() == "crash{reason=lost},dead-code\n"
    assert json.loads((folder / "failure.json").read_text())["error"].endswith(str(caught.value))
    from fxquant.passes.instruments.replay import replay

    with pytest.raises(PassError, match="the pass crash{reason=lost} failed: KeyError: 'lost'"):
        replay(folder)
    case = read_reproducer(folder)
    same = torch.allclose(case.graph_module(*case.probe), model(*case.probe), atol=1e-4)
    assert same != randomized


@pytest.mark.usefixtures("planted_passes")
def test_a_failed_validation_is_reproduced_too(tmp_path: Path) -> None:
    from fxquant.passes.instruments.replay import replay

    pipeline = Pipeline.default("float").append("wrong-sigmoid")
    with pytest.raises(PassError), instruments(f"reproduce={tmp_path / 'a'}", "validate"):
        pipeline(trace(net(), pictures(1)[0]))
    with pytest.raises(PassError, match="the pass wrong-sigmoid promises exact"):
        replay(tmp_path / "a")


def test_a_folder_that_is_no_reproducer(tmp_path: Path) -> None:
    from fxquant.passes.instruments.replay import replay

    with pytest.raises(FormatError, match="holds no failure.json"):
        replay(tmp_path)
