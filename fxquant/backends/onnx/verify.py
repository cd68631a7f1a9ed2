"""Run the file in ONNX Runtime and compare every value with what the last graph computes.

Each operator is computed in torch from the values that the runtime has for its inputs, so that a
deviation is named where it arises and does not spread: a rounding that falls to the other side is
one step of one value, not an avalanche.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.backends.base import Lowered
from fxquant.errors import MissingDependency, Problem, VerifyError
from fxquant.ir.edit import tensor_at
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text

from .dialect import operator_of
from .passes.widen_operators import has_kernel
from .samples import flat_inputs
from .serialize import value_names

TOLERANCES = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
TOLERANCE = 2e-5
BF16 = torch.bfloat16
AS_FLOAT = ".float32"
SPARSE = 0.01  # of the integers may be one step off: ties fall either way


@dataclass
class Deviation:
    """How far one value of the runtime is from torch's.

    Attributes:
        name: the node.
        operator: what computes it.
        error: the largest difference, relative to the largest magnitude; for integers in steps.
        share: the part of the elements that differ.
        ok: whether that is as much as rounding explains.
    """

    name: str
    operator: str
    error: float = 0.0
    share: float = 0.0
    ok: bool = True

    def __str__(self) -> str:
        mark = " " if self.ok else "!"
        return f"{mark} {self.name:<40} {self.operator:<24} {self.error:9.2e} {self.share:8.2%}"


@dataclass
class OnnxReport:
    """The comparison, value by value, the worst over all samples.

    Attributes:
        rows: one for each value.
        problems: the values that deviate by more than rounding explains.
        samples: how many samples were run.
        not_run: why the file was only checked, and not run; empty if it was run.
    """

    rows: list[Deviation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    samples: int = 0
    not_run: str = ""

    @property
    def ok(self) -> bool:
        """Whether the file computes what the last graph computes."""
        return not self.problems

    @property
    def worst(self) -> Deviation | None:
        """The value that deviates most."""
        return max(self.rows, key=lambda row: (not row.ok, row.error), default=None)

    def check(self) -> None:
        """Raise `VerifyError` unless `ok`."""
        if self.problems:
            count = len(self.problems)
            what = f"ONNX Runtime computes {count} value{'s' * (count != 1)} otherwise than torch"
            raise VerifyError(what, problems=self.problems)

    def render(self) -> str:
        """The comparison as a table of text."""
        if self.not_run:
            return f"checked, not run: {self.not_run}"
        head = f"{len(self.rows)} values, {self.samples} samples: {'ok' if self.ok else 'NOT ok'}"
        return "\n".join([head, *map(str, self.rows)])


EXACT_SUMS = "session.x64quantprecision"  # x86 without VNNI adds pairs of products in 16 bits


def session(file: bytes | str, *, optimized: bool = False, exact: bool = True) -> Any:
    """An ONNX Runtime session on the CPU; the graph is run as it is written unless `optimized`.

    Args:
        file: the protobuf, or the path of the file.
        optimized: let the runtime rewrite the graph, as it does by default.
        exact: let its integer kernels add without saturation; by default they saturate on x86
            without VNNI, which costs several dB.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        fix = "pip install 'fxquant[onnx]'"
        raise MissingDependency("running ONNX files needs onnxruntime", fix=fix) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(EXACT_SUMS, str(int(exact)))
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run(made: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a session by name."""
    wanted = {item.name for item in made.get_inputs()}
    feeds = {name: value.numpy() for name, value in inputs.items() if name in wanted}
    names = [item.name for item in made.get_outputs()]
    values = made.run(names, feeds)
    return {
        n: torch.from_numpy(np.ascontiguousarray(v)).reshape(v.shape)
        for n, v in zip(names, values, strict=True)
    }


def verify(lowered: Lowered, data: Iterable[Any]) -> OnnxReport:
    """Compare every value of the file, by the inputs that the runtime has for its operator.

    Args:
        lowered: what `lower` returned.
        data: samples of the model's inputs.
    """
    import onnx

    root = lowered.graph_module
    names = value_names(root)
    report = OnnxReport()
    with tempfile.TemporaryDirectory() as folder:
        path = lowered.save(Path(folder) / "model.onnx")
        onnx.checker.check_model(str(path), full_check=True)
        missing = sorted(_without_kernel(root))
        if missing:
            report.not_run = f"ONNX Runtime has no kernels in bfloat16 for {', '.join(missing)}"
            return report
        made = _with_all_values(path, root, names)
        halves = {names[node] for node in _values(root) if node.meta["val"].dtype == BF16}
        for sample in data:
            inputs = flat_inputs(root, sample)
            found = {**inputs, **run(made, inputs)}
            found.update({name: found[name + AS_FLOAT].bfloat16() for name in halves})
            _compare(root, names, found, report)
            report.samples += 1
    return report


def _with_all_values(path: Path, root: GraphModule, names: dict[Node, str]) -> Any:
    """A session of the file that returns every value; bfloat16, which numpy lacks, as float32."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(path), load_external_data=False)
    known = {output.name for output in model.graph.output}
    for node in _values(root):
        if node.meta["val"].dtype == BF16:
            wide = names[node] + AS_FLOAT
            cast = helper.make_node("Cast", [names[node]], [wide], to=TensorProto.FLOAT)
            model.graph.node.append(cast)
            model.graph.output.append(
                helper.make_tensor_value_info(wide, cast.attribute[0].i, None)
            )
        elif names[node] not in known:
            kind = helper.np_dtype_to_tensor_dtype(_numpy(node))
            model.graph.output.append(helper.make_tensor_value_info(names[node], kind, None))
    everything = path.with_name("values.onnx")
    onnx.save(model, str(everything))
    return session(str(everything))


def _without_kernel(root: GraphModule) -> set[str]:
    """Operators in bfloat16 that the runtime cannot run."""
    nodes = [node for node in _values(root) if node.target is not operator.getitem]
    halves = [
        node
        for node in nodes
        if any(_dtype(each) == BF16 for each in (node, *node.all_input_nodes))
    ]
    called = {operator_of(node.target).name for node in halves if callable(node.target)}
    return {name for name in called if not has_kernel(name, BF16)}


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


def _numpy(node: Node) -> Any:
    dtype = node.meta["val"].dtype
    return torch.empty(0, dtype=dtype).numpy().dtype


def _values(root: GraphModule) -> list[Node]:
    """Every node with one value that the file computes."""
    nodes = [node for node in root.graph.nodes if node.op == "call_function"]
    return [node for node in nodes if isinstance(node.meta["val"], Tensor)]


def _compare(
    root: GraphModule, names: dict[Node, str], found: Mapping[str, Tensor], report: OnnxReport
) -> None:
    known = {row.name: row for row in report.rows}
    several: dict[Node, Any] = {}

    def load(node: Node) -> Any:
        if node.op == "get_attr":
            return tensor_at(root, node).detach()
        return several[node] if node in several else found[names[node]]

    for node in root.graph.nodes:
        if node.op != "call_function":
            continue
        args, kwargs = map_arg((node.args, node.kwargs), load)
        with torch.no_grad():
            wanted = node.target(*args, **kwargs)
        if not isinstance(wanted, Tensor):
            several[node] = wanted
            continue
        row = _deviation(node, wanted, found[names[node]])
        old = known.get(row.name)
        if old is None:
            report.rows.append(row)
        elif (not row.ok, row.error) > (not old.ok, old.error):
            report.rows[report.rows.index(old)] = row
        if not row.ok and (old is None or old.ok):
            what = f"%{row.name} differs by {row.error:.2g} in {row.share:.2%} of its elements"
            report.problems.append(Problem(what, format_node(node, root), source_text(node)))


def _deviation(node: Node, wanted: Tensor, found: Tensor) -> Deviation:
    called = getattr(node.target, "__name__", str(node.target))
    if node.target is operator.getitem:
        called = getattr(node.all_input_nodes[0].target, "__name__", called)
    row = Deviation(node.name, called)
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        row.error, row.share, row.ok = float("inf"), 1.0, False
        return row
    if wanted.numel() == 0:
        return row
    same = (wanted == found) | (wanted.isnan() & found.isnan())
    row.share = 1.0 - float(same.double().mean())
    distance = torch.where(same, 0.0, (wanted.double() - found.double()).abs())
    row.error = float(distance.max())
    if wanted.is_floating_point():
        finite = wanted[wanted.isfinite()].double().abs()
        row.error /= max(float(finite.max()) if finite.numel() else 1.0, 1e-30)
        row.ok = row.error <= TOLERANCES.get(wanted.dtype, TOLERANCE)
    else:
        few = row.share <= max(SPARSE, 1 / wanted.numel())
        rounded = called == "quantize_linear" and row.error <= 1 and few
        row.ok = rounded or row.share == 0
    return row
