"""A crash reproducer: when a pass fails, a folder that makes it fail again.

    pipeline.txt          the pass that failed and those behind it, as text
    graph.txt             the graph that the pass got
    graph.pickle          the same to load, without its tensors
    weights.safetensors   the tensors; with `randomized`, other numbers of the same spread
    probe.safetensors     inputs of the graph
    failure.json          the error, the instruments that were on, and where the passes come from

`fxquant replay folder` runs it again. Loading a pickle runs what it says: replay only folders that
you trust.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule

from fxquant.errors import FormatError
from fxquant.ir.edit import copy_graph_module
from fxquant.ir.printer import format_graph
from fxquant.passes.base import Pass
from fxquant.passes.instruments.base import Instrument
from fxquant.passes.instruments.probe import probe_inputs

if TYPE_CHECKING:
    from fxquant.passes.pipeline import Pipeline


class Reproduce(Instrument):
    """Writes a folder when a pass fails, with all that is needed to see it fail again.

    Args:
        folder: where to; a second failure goes into `folder-1`, and so on.
        randomized: write random numbers of the same mean and spread instead of the weights.
    """

    def __init__(self, folder: str | Path, randomized: bool = False) -> None:
        self.folder = Path(folder)
        self.randomized = randomized
        self.written: list[Path] = []
        self._passes: list[Pass] = []
        self._before: GraphModule | None = None

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        self._passes = pipeline.flat()

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        self._before = copy_graph_module(graph_module)
        while self._passes and self._passes[0] is not item:
            self._passes.pop(0)

    def pass_failed(self, item: Pass, graph_module: GraphModule, error: Exception) -> None:
        if self._before is None:
            return
        folder = _free(self.folder)
        passes = self._passes or [item]
        write_reproducer(folder, self._before, passes, error, randomized=self.randomized)
        self.written.append(folder)
        print(f"wrote {folder}: run `fxquant replay {folder}`", file=sys.stderr)


def _free(folder: Path) -> Path:
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in range(1, 10_000))
    return next(each for each in (folder, *numbered) if not (each / "failure.json").exists())


@dataclass(frozen=True)
class Reproducer:
    """What a folder holds, loaded."""

    pipeline: str
    graph_module: GraphModule
    probe: list[Any]
    error: str
    instruments: list[str]


def write_reproducer(
    folder: Path,
    graph_module: GraphModule,
    passes: Sequence[Pass],
    error: Exception,
    *,
    randomized: bool = False,
) -> None:
    """Write a folder for passes that fail on a graph; see the module docstring."""
    from fxquant.passes.instruments.active import active_instruments

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.txt").write_text(",".join(map(str, passes)) + "\n")
    (folder / "graph.txt").write_text(format_graph(graph_module))
    with (folder / "graph.pickle").open("wb") as file:
        pickler = _Pickler(file)
        pickler.dump(graph_module)
    tensors = {key: _stored(tensor, randomized) for key, tensor in pickler.tensors.items()}
    save_file(tensors, folder / "weights.safetensors")
    probe = {str(n): value for n, value in enumerate(probe_inputs(graph_module))}
    save_file(probe, folder / "probe.safetensors")
    watching = sorted({type(each).__name__ for each in active_instruments()} & {"Lint", "Validate"})
    content = {
        "error": f"{type(error).__name__}: {error}",
        "instruments": watching,
        "modules": sorted({_module_of(item) for item in passes}),
    }
    (folder / "failure.json").write_text(json.dumps(content, indent=2) + "\n")


def _aligned(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, copied: kernels sum unaligned memory in another order."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def read_reproducer(folder: Path) -> Reproducer:
    """Load a folder.

    Raises:
        FormatError: it is not what `Reproduce` writes.
    """
    if not (folder / "failure.json").is_file():
        fix = "give a folder that FXQUANT_REPRODUCE wrote"
        raise FormatError(f"{folder} holds no failure.json", fix=fix)
    content = json.loads((folder / "failure.json").read_text())
    for name in content["modules"]:
        _import(name)
    with (folder / "graph.pickle").open("rb") as file:
        graph_module = _Unpickler(file, _aligned(folder / "weights.safetensors")).load()
    probe = _aligned(folder / "probe.safetensors")
    return Reproducer(
        pipeline=(folder / "pipeline.txt").read_text().strip(),
        graph_module=graph_module,
        probe=[probe[str(number)] for number in range(len(probe))],
        error=content["error"],
        instruments=content["instruments"],
    )


def _module_of(item: Pass) -> str:
    """The module that registers a pass; as a file where it is the one that was started."""
    name = type(item).__module__
    return inspect.getfile(type(item)) if name == "__main__" else name


def _import(name: str) -> None:
    if name in sys.modules:
        return
    if name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return
    sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(name)
    except ImportError:
        return  # parsing the pipeline says which pass is unknown
    finally:
        sys.path.pop(0)


def _stored(tensor: Tensor, randomized: bool) -> Tensor:
    value = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    if not randomized or not value.is_floating_point() or value.numel() < 2:
        return value
    generator = torch.Generator().manual_seed(value.numel())
    noise = torch.randn(value.shape, generator=generator).to(value.dtype)
    other = value.mean() + noise * value.std()
    return other.abs() if bool((value >= 0).all()) else other


class _Pickler(pickle.Pickler):
    """Leaves tensors out and collects them by key."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.tensors: dict[str, Tensor] = {}
        self._keys: dict[int, str] = {}

    def persistent_id(self, value: Any) -> Any:
        """The key of a tensor, None for anything else."""
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor) or value.is_meta:
            return None
        key = self._keys.setdefault(id(value), f"t{len(self._keys)}")
        self.tensors[key] = value
        return key, isinstance(value, torch.nn.Parameter), value.requires_grad


class _Unpickler(pickle.Unpickler):
    """Puts the tensors of a safetensors file back."""

    def __init__(self, file: IO[bytes], tensors: dict[str, Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors
        self._made: dict[str, Tensor] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        """The tensor of a key, one object for each."""
        key, is_parameter, requires_grad = pid
        if key not in self._made:
            tensor = self._tensors[key]
            if is_parameter:
                tensor = torch.nn.Parameter(tensor, requires_grad=requires_grad)
            self._made[key] = tensor
        return self._made[key]
