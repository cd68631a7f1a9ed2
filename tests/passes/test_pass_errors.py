"""What a user did wrong with passes, told by text: names, options, requirements, packages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch.fx import GraphModule

from fxquant.errors import PassError, PipelineError, RegistrationError
from fxquant.passes import registry
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.registry import register_pass, registered_passes
from fxquant.tracing import trace
from tests.passes.planted import net, pictures


@dataclass(frozen=True)
class Nothing(Pass):
    """Does nothing."""

    name: ClassVar[str] = "nothing"

    def run(self, graph_module: GraphModule) -> PassResult:
        return PassResult(graph_module, False)


@dataclass(frozen=True)
class Egg(Nothing):
    """Needs the hen."""

    name: ClassVar[str] = "egg"
    requires: ClassVar[frozenset[str]] = frozenset({"hen"})
    establishes: ClassVar[frozenset[str]] = frozenset({"egg"})


@dataclass(frozen=True)
class Hen(Nothing):
    """Needs the egg."""

    name: ClassVar[str] = "hen"
    requires: ClassVar[frozenset[str]] = frozenset({"egg"})
    establishes: ClassVar[frozenset[str]] = frozenset({"hen"})


@dataclass(frozen=True)
class Forgetful(Nothing):
    """Returns the graph alone."""

    name: ClassVar[str] = "forgetful"

    def run(self, graph_module: GraphModule) -> Any:
        return graph_module


@pytest.fixture(autouse=True)
def restored_registry() -> Iterator[None]:
    registered_passes()
    saved, loaded = dict(registry._passes), set(registry._loaded)
    yield
    registry._passes.clear()
    registry._passes.update(saved)
    registry._loaded.clear()
    registry._loaded.update(loaded)


def test_an_unknown_pass_and_the_known_ones() -> None:
    with pytest.raises(PipelineError, match="no pass named 'fuse'\n  fix    the known passes are "):
        Pipeline.default("float").append("fuse")
    with pytest.raises(PipelineError, match="no default pipeline 'prune'"):
        Pipeline.default("prune")


def test_a_missing_requirement_names_who_could_establish_it() -> None:
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse("fuse-conv-bn,insert-observers").check()
    text = str(caught.value)
    assert "fuse-conv-bn requires 'functional', which does not hold there" in text
    assert "fix    put one of these before it: functionalize" in text
    assert "insert-observers requires " in text


def test_an_impossible_requirement() -> None:
    with pytest.raises(PipelineError, match="egg requires 'hen'.*\n.*no pass establishes it"):
        Pipeline((Egg(),)).check()


def test_a_cycle_of_requirements_is_called_so() -> None:
    register_pass(Egg)
    register_pass(Hen)
    for order in ((Egg(), Hen()), (Hen(), Egg())):
        with pytest.raises(PipelineError, match="itself: a cycle"):
            Pipeline(order).check()


def test_a_pass_that_returns_no_result() -> None:
    with pytest.raises(PassError, match="forgetful returned a .*\n.*return PassResult"):
        Pipeline((Forgetful(),))(trace(net(), pictures(1)[0]))


def package(folder: Path, code: str) -> None:
    """An installed package that offers passes."""
    (folder / "their_passes.py").write_text(code)
    info = folder / "their_passes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fxquant.passes]\ntheirs = their_passes:Theirs\n")


THEIRS = """
from dataclasses import dataclass
from typing import ClassVar

import fxquant as fq


@dataclass(frozen=True)
class Theirs(fq.Pass):
    name: ClassVar[str] = {name!r}

    def run(self, graph_module):
        return fq.PassResult(graph_module, False)
"""


def import_from(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "their_passes", raising=False)


def test_a_package_offers_a_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package(tmp_path, THEIRS.format(name="theirs"))
    import_from(monkeypatch, tmp_path)
    assert str(Pipeline.parse("functionalize,theirs")) == "functionalize,theirs"


def test_a_package_wants_a_taken_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package(tmp_path, THEIRS.format(name="dead-code"))
    import_from(monkeypatch, tmp_path)
    with pytest.raises(RegistrationError) as caught:
        registered_passes()
    text = str(caught.value)
    assert "the pass name 'dead-code' is taken by fxquant.passes.dead_code.DeadCode" in text
    assert "their_passes.Theirs wants it too" in text


def test_a_package_that_raises_when_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package(tmp_path, "raise RuntimeError('no license')\n")
    import_from(monkeypatch, tmp_path)
    with pytest.raises(RegistrationError) as caught:
        Pipeline.parse("dead-code")
    text = str(caught.value)
    assert "the entry point 'their_passes:Theirs' of group fxquant.passes cannot be loaded" in text
    assert "no license" in text
    assert "repair or uninstall the package" in text
