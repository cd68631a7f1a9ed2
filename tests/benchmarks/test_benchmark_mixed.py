"""The benchmarks of mixed precision on their smallest cases."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import borders, mixed
from fxquant.backends.tflite.contents import FileTensor
from tests.mixed.attention_nets import transformer

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)


def test_borders_of_a_small_transformer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {**borders.VIT, "num_layers": 1, "hidden_dim": 32, "mlp_dim": 32, "image_size": 32}
    rules = borders._operators("gelu")
    case = borders.Case("vit", 32, "gelu float32", rules, small)
    monkeypatch.setattr(borders, "CASES", (case,))
    asked, cut = borders.main(["--json", str(tmp_path / "borders.json")])
    assert (asked.placing, cut.placing) == ("asked", "cut")
    assert asked.agrees and cut.agrees
    assert 0 < cut.moved < asked.moved
    assert cut.sqnr_db > 15


def test_bytes_of_a_tensor() -> None:
    assert borders.size_of(FileTensor("x", (2, 3), "int16")) == 12


def test_the_search_on_a_small_net(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(name: str, count: int) -> mixed.Net:
        model: nn.Module = transformer(outliers=150, depth=1)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(3 * count, 1, 8, 8, generator=generator).split(1)
        return mixed.Net(name, model, images, 10.0)

    monkeypatch.setattr(mixed, "build", small)
    (row,) = mixed.main(["--nets", "small", "--count", "4", "--json", str(tmp_path / "mixed.json")])
    assert row.judged_db >= row.asked_db > row.int8_db
    assert row.executed_db > row.int8_db + 5
    assert row.layers > 10 and row.exact > 0 and row.estimated > 0
    assert sum(int(part.split()[0]) for part in row.chosen.split(", ")) == row.layers
