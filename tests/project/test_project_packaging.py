"""What is shipped: the sdist and the wheel made from it hold every module, the links hold none.

hatchling leaves linked folders out of an sdist without a word, and with them, under a selection
that is a little wrong, the real ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.project.source_tree import PACKAGE, ROOT, python_files

MODULES = {str(path.relative_to(ROOT)) for path in python_files("fxquant")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that `python -m build` made from it, offline."""
    pytest.importorskip("build", reason="the package `build` is not installed")
    pytest.importorskip("hatchling", reason="the package `hatchling` is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_wheel_holds_every_module(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
    assert len(names) == len(set(names)) == len(MODULES)
    assert set(names) == MODULES


def test_wheel_has_license_command_and_type_marker(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "fxquant = fxquant.cli.main:main" in archive.read(points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "fxquant/py.typed" in names


def test_sdist_holds_modules_tests_and_documents(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= MODULES
    assert names >= {str(path.relative_to(ROOT)) for path in python_files("tests")}
    assert names >= {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "docs/architecture.md",
    }
    assert not any(name.startswith(("passes/", "backends/")) for name in names)


@pytest.mark.parametrize("link", ["passes", "backends"])
def test_links_lead_into_the_package(link: str) -> None:
    path = ROOT / link
    assert path.is_symlink()
    assert os.readlink(path) == f"fxquant/{link}"
    assert path.resolve() == PACKAGE / link


def test_links_are_in_no_path_of_a_tool() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    paths = [
        *settings["pytest"]["ini_options"]["testpaths"],
        *settings["mypy"]["files"],
        *settings["hatch"]["build"]["targets"]["sdist"]["only-include"],
    ]
    assert not {"passes", "backends", "."} & set(paths)


def test_every_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert {text.partition(">")[0].lower() for text in wanted} <= pinned
    assert "torch==2.13.0" in pins
