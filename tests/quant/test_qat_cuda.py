"""Calibration and training on an accelerator: the ranges, loops and files of the host.

Skipped where there is none. `python -m pytest tests/quant/test_qat_cuda.py` on a machine with one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.quant.settle import fake_quantizes
from tests.quant.qat_models import SHAPE, Picture, train, with_signs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CONFIGS = {
    "observed": fq.QuantConfig(),
    "per tensor": fq.QuantConfig(per_channel=False),
    "int4": fq.QuantConfig("int8w4"),
    "lsq": fq.QuantConfig(learned="lsq"),
    "lsq+": fq.QuantConfig(learned="lsq+"),
    "bfloat16": fq.QuantConfig("bfloat16"),
}


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """No TF32, whose products have 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def pictures(batch: int = 6) -> Tensor:
    return torch.randn(batch, *SHAPE, device="cuda")


def prepared(config: fq.QuantConfig | None = None) -> GraphModule:
    return fq.prepare_qat(with_signs(Picture()).cuda(), (pictures(2),), config)


@torch.no_grad()
def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.cpu() - wanted.cpu()).norm() / wanted.cpu().norm())


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_calibration_finds_the_ranges_that_the_host_finds(observer: str) -> None:
    config = fq.QuantConfig(activations=fq.QuantSpec("int8", observer=observer))
    model = with_signs(Picture()).eval()
    data = [torch.randn(4, *SHAPE) for _ in range(6)]
    here = fq.calibrate(fq.prepare(model, (data[0][:1],), config), data, progress=False)
    there = fq.prepare(copy.deepcopy(model).cuda(), (data[0][:1].cuda(),), config)
    fq.calibrate(there, data, progress=False)  # batches are moved to the model
    pairs = zip(fake_quantizes(here), fake_quantizes(there), strict=True)
    for (_, one), (_, other) in pairs:
        assert other.scale.is_cuda
        torch.testing.assert_close(other.scale.cpu(), one.scale, rtol=2e-3, atol=1e-7)
    assert relative_error(there(data[1][:1].cuda()), here(data[1][:1])) < 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_trains_and_the_file_computes_what_was_trained(name: str) -> None:
    graph = prepared(CONFIGS[name])
    losses = train(graph, 30, batch=pictures)
    assert sum(losses[-5:]) < sum(losses[:5])
    graph.eval()
    x = pictures(2)
    trained = graph(x)
    frozen = fq.convert(graph)
    assert relative_error(frozen(x), trained) < 0.02
    fq.verify(fq.lower(frozen, "tflite"), [x.cpu()]).check()
    assert frozen(x).is_cuda


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_gives_the_gradients_of_the_host(name: str) -> None:
    there = prepared(CONFIGS[name])
    x, y = pictures(8), torch.randint(4, (8,), device="cuda")
    there(x)  # ranges
    there.eval()
    here = copy.deepcopy(there).cpu()
    for graph, device in ((there, "cuda"), (here, "cpu")):
        F.cross_entropy(graph(x.to(device)), y.to(device)).backward()
    for (path, one), (_, other) in zip(
        there.named_parameters(), here.named_parameters(), strict=True
    ):
        if other.grad is not None and float(other.grad.norm()) > 1e-5:
            assert one.grad is not None and one.grad.is_cuda
            # A value at a border of two integers may fall either way.
            assert relative_error(one.grad, other.grad) < 0.1, path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_automatic_mixed_precision(dtype: torch.dtype) -> None:
    graph = prepared().train()
    optimizer = torch.optim.AdamW(graph.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    for _ in range(4):
        with torch.autocast("cuda", dtype):
            loss = F.cross_entropy(graph(pictures()), torch.randint(4, (6,), device="cuda"))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert torch.isfinite(loss)
    frozen = fq.convert(graph.eval())
    fq.verify(fq.lower(frozen, "tflite"), [torch.randn(2, *SHAPE)]).check()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["observed", "lsq"])
def test_compiled_training_follows_eager_training(name: str) -> None:
    eager = prepared(CONFIGS[name]).train()
    for module in eager.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    eager(pictures())  # ranges are known, so that both begin alike
    twin = copy.deepcopy(eager)
    batches = [pictures() for _ in range(4)]
    losses = [train_on(eager, eager, batches), train_on(torch.compile(twin), twin, batches)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def train_on(model: Callable[..., Any], owner: nn.Module, batches: list[Tensor]) -> list[float]:
    optimizer = torch.optim.SGD(owner.parameters(), lr=0.01)
    found = []
    for x in batches:
        loss = F.mse_loss(model(x)[:, 0], x.flatten(1).mean(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_one_call_from_a_model_on_the_device_to_a_file() -> None:
    model = with_signs(Picture()).eval().cuda()
    data = [pictures(1) for _ in range(8)]
    compiled = fq.compile(model, (data[0],), calibration=data, progress=False)
    fq.verify(compiled, [batch.cpu() for batch in data[:2]]).check()
    assert next(model.parameters()).is_cuda
