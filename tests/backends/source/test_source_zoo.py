"""Whole networks as files: equal to the graph, the same graph again, the original's checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fxquant as fq
from tests.tracing.test_tracing_zoo import NETS, SIZES, network


@pytest.mark.parametrize("name", NETS.split())
def test_traced(name: str, tmp_path: Path) -> None:
    model = network(name).eval()
    size = SIZES.get(name, 64)
    example = torch.randn(1, 3, size, size)
    graph = fq.trace(model, (example,))
    lowered = fq.lower(graph, "source")
    lowered.save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    with torch.no_grad():
        assert torch.equal(made(example), graph(example))
    assert fq.format_graph(fq.trace(made, (example,))) == fq.format_graph(graph)
    type(made)().load_state_dict(model.state_dict(), strict=True)
