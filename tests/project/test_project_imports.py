"""The architecture as imports: which way the arrows run, and who may use which package.

errors, report ← ir ← tracing, quant ← passes ← backends ← api ← cli
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.project.source_tree import PACKAGE, ROOT, Import, imports, is_inside, python_files

# A file may import from its own layer and from those before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("fxquant.errors", "fxquant.report"),
    ("fxquant.ir",),
    ("fxquant.tracing", "fxquant.quant"),
    ("fxquant.passes",),
    ("fxquant.backends",),
    ("fxquant.api", "fxquant"),
    ("fxquant.cli",),
)
ONLY_INSIDE = {
    "ai_edge_litert": "fxquant/backends/tflite",
    "flatbuffers": "fxquant/backends/tflite",
    "tflite": "fxquant/backends/tflite",
    "onnx": "fxquant/backends/onnx",
    "onnxruntime": "fxquant/backends/onnx",
}
OPTIONAL = (
    "PIL",
    "ai_edge_litert",
    "hypothesis",
    "onnx",
    "onnxruntime",
    "pytest",
    "sklearn",
    "torchvision",
)
NOWHERE = ("torch.ao", "torch.quantization")


def layer_of(name: str) -> int:
    """The number of the layer that a dotted name belongs to; the most specific row wins."""
    rows = [(package, number) for number, packages in enumerate(LAYERS) for package in packages]
    matching = [(len(package), number) for package, number in rows if is_inside(name, package)]
    return max(matching)[1]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


ALL_IMPORTS = [found for file in python_files("fxquant") for found in imports(file)]


def test_arrows_run_one_way() -> None:
    against = [
        str(found)
        for found in ALL_IMPORTS
        if is_inside(found.name, "fxquant")
        and layer_of(found.name) > layer_of(module_name(found.file))
    ]
    assert against == []


def test_only_a_backend_knows_itself() -> None:
    """The core names no backend; only the command line reads the files of one."""
    inside = (PACKAGE / "backends", PACKAGE / "cli")
    knowing = [
        str(found)
        for found in ALL_IMPORTS
        if any(is_inside(found.name, f"fxquant.backends.{name}") for name in ("tflite", "onnx"))
        and not any(found.file.is_relative_to(folder) for folder in inside)
    ]
    assert knowing == []


@pytest.mark.parametrize("package", ONLY_INSIDE)
def test_format_packages_stay_in_their_backend(package: str) -> None:
    outside = [
        str(found)
        for found in ALL_IMPORTS
        if is_inside(found.name, package)
        and not found.file.is_relative_to(ROOT / ONLY_INSIDE[package])
    ]
    assert outside == []


def test_nothing_of_torch_ao() -> None:
    everywhere = python_files("fxquant", "tests", "benchmarks", "examples")
    found: list[Import] = [each for file in everywhere for each in imports(file)]
    assert [
        str(each) for each in found if any(is_inside(each.name, name) for name in NOWHERE)
    ] == []


IMPORT_ALL = """
    import importlib, pkgutil, sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {blocked!r}:
                raise ImportError(f"{{name}} is optional and must not be imported")

    sys.meta_path.insert(0, Refuse())
    import fxquant
    for found in pkgutil.walk_packages(fxquant.__path__, "fxquant."):
        importlib.import_module(found.name)
    print("imported", "fxquant.api" in sys.modules)
"""


def test_importing_everything_needs_no_optional_package() -> None:
    script = textwrap.dedent(IMPORT_ALL).format(blocked=OPTIONAL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported True"


def test_importing_fxquant_imports_no_backend() -> None:
    script = (
        "import sys, fxquant; print([m for m in sys.modules if m in ('tflite', 'flatbuffers')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
