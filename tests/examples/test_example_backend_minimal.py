"""The minimal backend as a package of its own, installed beside fxquant and found by its name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.project.source_tree import ROOT

EXAMPLE = ROOT / "examples" / "backend_minimal"
USE = """
    import torch, fxquant as fq
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    x = torch.randn(1, 1, 4, 4)
    lowered = fq.compile(model, (x,), quantize="int8", calibration=[x], backend="text",
                         options={"title": "my net"}, progress=False, output="net.txt")
    print(open("net.txt").read())
    print(lowered.report.operators)
    print(fq.explain(nn.Sequential(model, nn.Softmax(1)), (x,), backend="text").render(200))
    try:
        fq.compile(nn.Softmax(1), (torch.ones(1, 2),), backend="text")
    except fq.FxquantError as error:
        print(error)
    try:
        fq.lower(fq.trace(nn.ReLU(), (x,)), "text", options={"titel": "x"})
    except fq.FxquantError as error:
        print(error)
"""
BROKEN = """
    import torch, fxquant as fq
    try:
        fq.compile(torch.nn.ReLU(), (torch.ones(1),), backend="broken")
    except fq.FxquantError as error:
        print(type(error).__name__, error)
"""


def run(script: str, target: Path, folder: Path) -> str:
    """What a script prints that sees the packages in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example, installed as users do it."""
    pytest.importorskip("hatchling", reason="the package `hatchling` is not installed")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--target", str(target), str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_backend_is_found_by_its_name(installed: Path, tmp_path: Path) -> None:
    printed = run(USE, installed, tmp_path)
    assert "# my net\ngraph(%input_1: f32[1,1,4,4])" in printed
    assert "fake_quantize_per_tensor_affine(" in printed
    assert "'conv2d': 1" in printed
    assert "text has no softmax" in printed
    assert "not at all" in printed
    assert "there is no option titel" in printed
    assert "did you mean title?" in printed


def test_a_backend_that_raises_at_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken_backend.py").write_text("raise OSError('libbroken.so is missing')\n")
    facts = tmp_path / "broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[fxquant.backends]\nbroken = broken_backend:Broken\n")
    printed = run(BROKEN, tmp_path, tmp_path)
    assert printed.startswith("RegistrationError the backend 'broken' (broken_backend:Broken)")
    assert "cannot be loaded: libbroken.so is missing" in printed
    assert "repair or uninstall" in printed


def test_the_module_is_small() -> None:
    lines = (EXAMPLE / "text_backend.py").read_text().splitlines()
    assert len(lines) <= 50
