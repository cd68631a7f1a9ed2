"""Whole nets at small inputs: float within 1e-4 of torch, int8 within 1 dB of the simulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxquant as fq
from fxquant.backends.onnx.verify import run, session
from tests.backends.onnx.runtime_checks import check, quantized, sqnr
from tests.support.vision import vision_models
from tests.support.zoo import warm_batch_norms

NETS = ("resnet18", "squeezenet1_1")


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = getattr(vision_models(), name)(weights=None, num_classes=10)
    warm_batch_norms(model, (3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("name", NETS)
def test_a_net(name: str) -> None:
    model, x = small(name), torch.randn(1, 3, 64, 64)
    check(model, x, tolerance=1e-4)
    core, _ = quantized(model, x)
    lowered = fq.lower(core, "onnx")
    fq.verify(lowered, [x]).check()
    samples = [(torch.randn(1, 3, 64, 64),) for _ in range(24)]
    with torch.no_grad():
        wanted = torch.cat([model(*sample) for sample in samples])
        simulated = torch.cat([core(*sample) for sample in samples])
    for optimized in (False, True):  # as it is written, and as integer kernels
        program = session(lowered.to_bytes(), optimized=optimized)
        found = torch.cat([run(program, {"x": sample[0]})["output"] for sample in samples])
        assert abs(sqnr(wanted, found) - sqnr(wanted, simulated)) < 1.0
