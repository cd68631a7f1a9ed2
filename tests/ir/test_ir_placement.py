"""Where a graph computes, and its copy on the host."""

from __future__ import annotations

import torch
from torch import nn

import fxquant as fq
from fxquant.ir.placement import HOST, device_of, on_host


class Ramp(nn.Module):
    """Holds nothing and makes a tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(4, dtype=torch.float32, device=x.device)


def test_a_graph_on_the_host_is_not_copied() -> None:
    graph = fq.trace(nn.Linear(4, 2), (torch.randn(1, 4),))
    assert device_of(graph) == HOST
    assert on_host(graph) is graph


def test_a_graph_without_tensors_is_where_its_inputs_are() -> None:
    assert device_of(fq.trace(Ramp(), (torch.randn(1, 4),))) == HOST


def test_tensors_elsewhere_are_found() -> None:
    graph = fq.trace(nn.Linear(4, 2), (torch.randn(1, 4),))
    graph.register_buffer("absent", torch.empty(1, device="meta"))
    assert device_of(graph) == HOST  # what has no data says nothing
