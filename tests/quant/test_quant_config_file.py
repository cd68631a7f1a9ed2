"""A configuration file that lists every node: written, edited, read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import ConfigError, InputError, OutputError
from fxquant.quant.constraints import annotation_of


class Net(nn.Module):
    """A fused activation, a mover, free operators, and one that stays in float."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
        x = torch.sinh(x) * 2.0
        return torch.sigmoid(self.head(x.flatten(1)))


EXAMPLE = (torch.randn(1, 1, 8, 8),)


def precisions(config: fq.QuantConfig | None) -> dict[str, str]:
    torch.manual_seed(0)
    prepared = fq.prepare(Net().eval(), EXAMPLE, config)
    pairs = ((node.name, annotation_of(node)) for node in prepared.graph.nodes)
    return {name: str(found.precision) for name, found in pairs if found is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.yaml"


def written(path: Path) -> fq.QuantConfig:
    return fq.write_config(Net().eval(), path, example_inputs=EXAMPLE)


def test_every_node_has_a_line_that_says_why(path: Path) -> None:
    written(path)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# What every operator computes in, for tflite.")
    listed = [" ".join(line.split()) for line in lines[lines.index("nodes:") + 1 :]]
    assert listed[0] == "conv: int8 # conv2d f32[1,4,8,8] in conv"
    assert listed[1] == "# relu: int8 # relu f32[1,4,8,8]; ends conv"
    assert "# max_pool2d: int8 # max_pool2d f32[1,4,4,4]; follows what it moves" in listed
    assert "sinh: float32 # sinh f32[1,4,4,4]; tflite has no int8 kernel for aten.sinh" in listed
    names = {line.removeprefix("# ").partition(":")[0] for line in listed}
    assert names == set(precisions(None))


def test_what_is_written_gives_the_same_graph(path: Path) -> None:
    config = written(path)
    assert config == fq.QuantConfig.from_yaml(path)
    assert precisions(config) == precisions(None)


def test_an_edited_line_counts(path: Path) -> None:
    written(path)
    text = path.read_text()
    assert "conv: int8  " in text
    path.write_text(text.replace("conv: int8  ", "conv: float32"))
    after, before = precisions(fq.QuantConfig.from_yaml(path)), precisions(None)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"conv", "relu", "max_pool2d"}  # what is fused or only moves follows
    path.write_text(text.replace("head: int8   ", "head: int16x8"))
    after = precisions(fq.QuantConfig.from_yaml(path))
    assert after["head"] == "int16x8"


def test_rules_become_lines_and_other_choices_stay(path: Path) -> None:
    config = fq.QuantConfig(per_channel=False, keep_float=("head",))
    fq.write_config(Net().eval(), path, example_inputs=EXAMPLE, config=config)
    data = yaml.safe_load(path.read_text())
    assert data["per_channel"] is False and "keep_float" not in data
    assert data["nodes"]["head"] == "float32"
    assert "=head -> float32" in path.read_text()


def test_a_prepared_graph_is_written_as_it_is(path: Path) -> None:
    prepared = fq.prepare(Net().eval(), EXAMPLE, fq.QuantConfig("int16x8"))
    config = fq.write_config(prepared, path)
    assert config.precision == "int16x8"
    assert precisions(config) == precisions(fq.QuantConfig("int16x8"))


def line_of(path: Path, start: str) -> int:
    """The number of the line that begins so."""
    lines = path.read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.startswith(start))


def test_a_node_that_is_no_longer_there(path: Path) -> None:
    written(path)
    path.write_text(path.read_text().replace("  conv: int8", "  conv_1: int8"))
    with pytest.raises(ConfigError) as error:
        precisions(fq.QuantConfig.from_yaml(path))
    line = line_of(path, "  conv_1: int8")
    message = f"rule node=conv_1 -> int8 ({path.name}:{line}): matches no node"
    assert message in str(error.value)
    assert "did you mean node=conv?" in str(error.value)


def test_a_precision_that_the_target_lacks(path: Path) -> None:
    written(path)
    path.write_text(path.read_text().replace("sinh: float32", "sinh: int8"))
    with pytest.raises(ConfigError) as error:
        precisions(fq.QuantConfig.from_yaml(path))
    line = line_of(path, "  sinh: int8")
    rule = f"rule node=sinh -> int8 ({path.name}:{line})"
    assert f"{rule}: tflite has no int8 kernel for aten.sinh" in str(error.value)
    assert "torch.sinh(x) * 2.0" in str(error.value)


def test_bad_files(path: Path) -> None:
    with pytest.raises(ConfigError, match="no precision 'int7'"):
        fq.QuantConfig.from_yaml("nodes: {conv: int7}")
    with pytest.raises(ConfigError, match="nodes must be names and precisions, got list"):
        fq.QuantConfig.from_yaml("nodes: [conv]")
    with pytest.raises(InputError, match="followi"):
        fq.write_config(Net(), path)
    with pytest.raises(OutputError, match="cannot be written"):
        fq.write_config(Net().eval(), path.parent / "no" / "q.yaml", example_inputs=EXAMPLE)
    with pytest.raises(ConfigError, match="nothing says what the operators"):
        fq.QuantConfig().to_yaml(fq.trace(Net().eval(), EXAMPLE))
