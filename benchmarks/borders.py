"""What do conversions between precisions cost, placed by minimum cut and one operator at a time?

    python -m benchmarks.borders [--models vit,swin_t] [--json borders.json]

Each net is compiled twice with the same mixed rules: once with every operator in its own precision
(`annotate{placing=asked}`), once with the borders where they move the fewest bytes. Counted are the
QUANTIZE and DEQUANTIZE operators of the file inside the graph, and the bytes that they read and
write. Every file is run by LiteRT and every value compared with the simulation.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fxquant as fq
from benchmarks.execution import sqnr
from benchmarks.figures import write_json
from fxquant.backends.tflite.contents import FileModel, FileTensor
from fxquant.backends.tflite.reader import read_bytes
from tests.support.vision import vision_models
from tests.support.zoo import warm_batch_norms

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
ITEM_BYTES = {"float32": 4, "int16": 2, "int8": 1, "uint8": 1, "int4": 0.5}
PLACINGS = ("asked", "cut")


def _every_second(kind: type[nn.Module], precision: str) -> Callable[[nn.Module], fq.QuantConfig]:
    """Every second layer of a kind in another precision."""

    def config(model: nn.Module) -> fq.QuantConfig:
        paths = [path for path, module in model.named_modules() if type(module) is kind]
        return fq.QuantConfig(rules=tuple(fq.Rule(precision, module=path) for path in paths[::2]))

    return config


def _operators(*names: str) -> Callable[[nn.Module], fq.QuantConfig]:
    """Some operators in float."""
    return lambda model: fq.QuantConfig(rules=tuple(fq.Rule(op=name) for name in names))


@dataclass(frozen=True)
class Case:
    """A net, and what is not int8 in it."""

    net: str
    size: int
    rules: str
    config: Callable[[nn.Module], fq.QuantConfig]
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)


VIT = {
    "image_size": 64,
    "patch_size": 16,
    "num_layers": 4,
    "num_heads": 4,
    "hidden_dim": 128,
    "mlp_dim": 256,
}
CONVS_FLOAT = ("every 2nd conv float32", _every_second(nn.Conv2d, "float32"))
CASES = (
    Case("mobilenet_v2", 64, *CONVS_FLOAT),
    Case("mobilenet_v3_small", 64, "swishes float32", _operators("hardswish")),
    Case("resnet18", 64, *CONVS_FLOAT),
    Case("resnet18", 64, "every 2nd conv int16x8", _every_second(nn.Conv2d, "int16x8")),
    Case("shufflenet_v2_x1_0", 64, *CONVS_FLOAT),
    Case("densenet121", 64, *CONVS_FLOAT),
    Case("googlenet", 64, *CONVS_FLOAT, {"init_weights": True, "aux_logits": False}),
    Case("vit", 64, "gelu float32", _operators("gelu"), VIT),
    Case("vit", 64, "every 2nd linear int16x8", _every_second(nn.Linear, "int16x8"), VIT),
    Case("swin_t", 64, "softmax and gelu float32", _operators("softmax", "gelu")),
)


@dataclass(frozen=True)
class Row:
    """One file: its conversions, their bytes, and how it runs in LiteRT.

    Attributes:
        conversions: QUANTIZE and DEQUANTIZE of activations, those at inputs and outputs left out.
        moved: bytes that they read and write.
        agrees: whether LiteRT computes every operator as the simulation does.
        sqnr_db: of the simulated outputs against the float model.
    """

    model: str
    rules: str
    placing: str
    conversions: int
    moved: int
    agrees: bool
    sqnr_db: float


def conversions(file: FileModel) -> list[tuple[FileTensor, FileTensor]]:
    """Source and result of the conversions inside the graph."""
    graph = file.main
    outside = {*graph.inputs, *graph.outputs}
    found = [op for op in graph.operators if op.name in CONVERSIONS]
    inner = [op for op in found if not outside & {op.inputs[0], op.outputs[0]}]
    pairs = [(graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]) for op in inner]
    return [pair for pair in pairs if not pair[0].is_constant]


def size_of(tensor: FileTensor) -> int:
    """Bytes of a tensor's values."""
    return int(torch.Size(tensor.shape).numel() * ITEM_BYTES[tensor.dtype])


def build(case: Case) -> nn.Module:
    """The seeded net in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        name = "VisionTransformer" if case.net == "vit" else case.net
        models = vision_models()
        source = models.vision_transformer if case.net == "vit" else models
        options = case.options if case.net == "vit" else {"weights": None, **case.options}
        model: nn.Module = getattr(source, name)(**options)
        if case.net == "vit":
            nn.init.normal_(model.heads.head.weight, std=0.05)  # type: ignore[union-attr, arg-type]
        warm_batch_norms(model, (3, case.size, case.size))
    return model.eval()


def measure(case: Case) -> list[Row]:
    """Both placings of one case."""
    model = build(case)
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 3, case.size, case.size, generator=generator) for _ in range(3)]
    return [_measured(case, model, images, placing) for placing in PLACINGS]


def _measured(case: Case, model: nn.Module, images: list[torch.Tensor], placing: str) -> Row:
    pipeline = fq.Pipeline.default("ptq").with_options("annotate", placing=placing)
    lowered = fq.compile(
        model,
        (images[0],),
        quantize=case.config(model),
        calibration=images[:2],
        pipeline=pipeline,
        progress=False,
        verify=False,
    )
    report = fq.verify(lowered, images[2:])
    found = conversions(read_bytes(lowered.to_bytes()))
    with torch.no_grad():
        wanted, simulated = model(images[2]), lowered.graph_module(images[2])
    return Row(
        case.net,
        case.rules,
        placing,
        len(found),
        sum(size_of(source) + size_of(result) for source, result in found),
        not any(row.failure(report.kernels) for row in report.rows),
        sqnr(wanted, simulated),
    )


def table(rows: Sequence[Row]) -> Table:
    """One line a case: asked, then cut."""
    result = Table(title="conversions between precisions", title_justify="left")
    for heading in ("net", "rules"):
        result.add_column(heading)
    for heading in ("each its own", "MB", "minimum cut", "MB", "bytes saved", "LiteRT agrees"):
        result.add_column(heading, justify="right")
    for asked, cut in zip(rows[::2], rows[1::2], strict=True):
        saved = 1 - cut.moved / asked.moved if asked.moved else 0.0
        result.add_row(
            asked.model,
            asked.rules,
            *(str(asked.conversions), f"{asked.moved / 1e6:.3f}"),
            *(str(cut.conversions), f"{cut.moved / 1e6:.3f}"),
            f"{saved:.0%}",
            "both" if asked.agrees and cut.agrees else "NO",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=",".join(dict.fromkeys(c.net for c in CASES)))
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(arguments)
    console, rows = Console(stderr=True), list[Row]()
    for case in (each for each in CASES if each.net in given.models.split(",")):
        with console.status(f"{case.net}: {case.rules}"):
            rows.extend(measure(case))
    Console(width=140).print(table(rows))
    write_json(given.json, rows)
    return rows


if __name__ == "__main__":
    main()
