"""Does the generated model compute what its graph computes, at every stage, for every net?

    python -m benchmarks.source [--models resnet18,vit] [--stages traced,frozen] [--json FILE]

One row for each net and stage. The graph of the stage is written as `model.py`, the file is loaded
and both are called with a picture.

    equal      the results of file and graph, bit for bit
    same text  the file of the file: the loaded model goes through the stage again. Comments do not
               count, as rules name nodes; `-` where the stage is no longer the same by design:
               quantizers stand there already, or the first step of an unrolled LSTM folds
    strict     the original's checkpoint loads into the file's class (`-` from the core dialect on,
               where batch norms are folded)
    lines      of model.py

The fifteen convolutional nets of `tests/support/zoo.py` at pictures as small as they take, with
batch norms of real statistics, two vision transformers, and the four nets on digits.
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import functools
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from benchmarks.digit_nets import NETS as DIGIT_NETS
from benchmarks.figures import write_json
from fxquant.backends.source.verify import verify
from fxquant.quant.constraints import operator_name
from tests.support.vision import SMALL_TRANSFORMERS, small_transformer
from tests.support.zoo import NAMES, entry_of, warm_batch_norms

SIZE = 64
SIZES = {"inception_v3": 299}  # its second classifier, which training runs, takes no smaller one
UNROLLED = ("lstm",)
MODELS = (*NAMES, *SMALL_TRANSFORMERS, *DIGIT_NETS)


@dataclass(frozen=True)
class Stage:
    """A stage by what makes its graph.

    Attributes:
        make: from a model and a picture to the graph.
        options: of the backend.
        loads: whether the original's checkpoint fits.
        again: whether the stage of the loaded file is the same graph again.
    """

    make: Callable[[nn.Module, Tensor], GraphModule]
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    loads: bool = False
    again: bool = True


def traced(model: nn.Module, image: Tensor) -> GraphModule:
    """As in the user's code."""
    return fq.trace(model, (image,))


def core(model: nn.Module, image: Tensor) -> GraphModule:
    """The dialect of the passes, norms folded."""
    return fq.Pipeline.default("float")(fq.trace(model, (image,)))


def mixed(graph: GraphModule) -> fq.QuantConfig:
    """Some of everything: the first layer stays float, the last computes in int16x8."""
    layers = [
        node.name
        for node in graph.graph.nodes
        if operator_name(node, graph) in {"conv2d", "linear"}
    ]
    wanted = {layers[0]: "float32", layers[-1]: "int16x8"}
    return fq.QuantConfig(rules=tuple(fq.Rule(node=n, precision=p) for n, p in wanted.items()))


def annotated(model: nn.Module, image: Tensor) -> GraphModule:
    """With a precision and a reason behind each line."""
    steps = fq.Pipeline.default("ptq").remove("insert-stubs").remove("insert-observers")
    return fq.prepare(model, (image,), mixed(core(model, image)), pipeline=steps)


def prepared(model: nn.Module, image: Tensor) -> GraphModule:
    """With observers of mixed precision, calibrated."""
    graph = fq.prepare(model, (image,), mixed(core(model, image)))
    fq.calibrate(graph, [image], progress=False)
    return graph


def frozen(model: nn.Module, image: Tensor) -> GraphModule:
    """The same with every scale a constant."""
    return fq.convert(prepared(model, image))


def training(model: nn.Module, image: Tensor) -> GraphModule:
    """With rounding that is trained."""
    return fq.prepare_qat(model.train(), (image,))


STAGES: Mapping[str, Stage] = {
    "traced": Stage(traced, loads=True),
    "stubbed": Stage(traced, {"stage": "stubbed"}, loads=True),
    "core": Stage(core),
    "annotated": Stage(annotated),
    "prepared": Stage(prepared, again=False),
    "frozen": Stage(frozen, again=False),
    "training": Stage(training, again=False),
}


@dataclass
class Row:
    """What was found of one net at one stage; `failure` says why there is nothing."""

    model: str
    stage: str
    equal: bool = False
    same_text: bool | None = None
    strict: bool | None = None
    lines: int = 0
    seconds: float = 0.0
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether all that was asked holds."""
        asked = (self.equal, self.same_text, self.strict)
        return not self.failure and all(each is not False for each in asked)

    def cells(self) -> list[str]:
        """The row for a terminal."""
        words = {True: "yes", False: "NO", None: "-"}
        if self.failure:
            return [self.failure]
        found = [words[each] for each in (self.equal, self.same_text, self.strict)]
        return [*found, str(self.lines), f"{self.seconds:.1f}"]


@functools.lru_cache(maxsize=1)
def network(name: str) -> tuple[nn.Module, Tensor]:
    """A net in eval mode and a picture for it, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in DIGIT_NETS:
            return DIGIT_NETS[name]().eval(), torch.randn(2, 1, 8, 8)
        if name in SMALL_TRANSFORMERS:
            return small_transformer(name).eval(), torch.randn(2, 3, 32, 32)
        size = SIZES.get(name, SIZE)
        model = entry_of(name).build()
        warm_batch_norms(model, (3, size, size))
        return model.eval(), torch.randn(1, 3, size, size)


def measure(row: Row, model: nn.Module, image: Tensor, folder: Path) -> None:
    """Write the file of one stage, load it, and compare."""
    stage, path, start = STAGES[row.stage], folder / "model.py", time.perf_counter()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lowered = fq.lower(stage.make(model, image), "source", options=stage.options)
    lowered.save(path)
    row.seconds = time.perf_counter() - start
    text = path.read_text()
    row.lines = text.count("\n")
    report = verify(lowered, [image], path)
    row.equal = report.ok
    made = fq.load_model(path)
    if stage.loads:
        fresh = type(made)()
        fresh.load_state_dict(state, strict=True)
        row.strict = True
    if stage.again and not (row.stage == "annotated" and row.model in UNROLLED):
        again = fq.lower(stage.make(made, image), "source", options=stage.options)
        row.same_text = code_of(bytes(again.segments()[0]).decode()) == code_of(text)


def code_of(text: str) -> str:
    """A file's code without comments, which decide where lines break."""
    return ast.unparse(ast.parse(text))


def measure_or_reason(name: str, stage: str) -> Row:
    """The row of one net at one stage, or why there is none."""
    row = Row(name, stage)
    try:
        known, image = network(name)
        model = copy.deepcopy(known)  # training and equalizing change it
        with tempfile.TemporaryDirectory() as folder:
            measure(row, model, image, Path(folder))
    except fq.FxquantError as error:
        row.failure = f"{type(error).__name__}: {error}".partition("\n")[0]
    except Exception:
        row.failure = traceback.format_exc().splitlines()[-1]
    return row


def table(rows: Sequence[Row]) -> Table:
    """The figures for a terminal."""
    result = Table(title="source", title_justify="left")
    for heading in ("model", "stage", "equal", "same text", "strict", "lines", "seconds"):
        result.add_column(heading)
    for row in rows:
        result.add_row(row.model, row.stage, *row.cells())
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas between")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    console, rows = Console(stderr=True, soft_wrap=True, highlight=False), []
    for name in given.models.split(","):
        for stage in given.stages.split(","):
            rows.append(measure_or_reason(name, stage))
            console.print(" ".join([name, stage, *rows[-1].cells()]))
    Console(width=140).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
