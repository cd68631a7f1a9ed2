"""Whole nets at small inputs: float within 1e-4 of torch, int8 within 1 dB of the simulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxquant as fq
from tests.backends.onnx.runtime_checks import check, quantized, run_file, sqnr
from tests.support.vision import vision_models
from tests.support.zoo import warm_batch_norms

NETS = ("mobilenet_v2", "resnet18")


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = getattr(vision_models(), name)(weights=None, num_classes=10)
    warm_batch_norms(model, (3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("name", NETS)
def test_a_net(name: str) -> None:
    model, x = small(name), torch.randn(1, 3, 64, 64)
    check(model, x, tolerance=1e-4)
    core, samples = quantized(model, x)
    lowered = fq.lower(core, "onnx")
    with torch.no_grad():
        wanted = torch.cat([model(*sample) for sample in samples])
        simulated = torch.cat([core(*sample) for sample in samples])
        found = torch.cat([run_file(lowered, *sample)[0] for sample in samples])
    assert abs(sqnr(wanted, simulated) - sqnr(wanted, found)) < 1.0
