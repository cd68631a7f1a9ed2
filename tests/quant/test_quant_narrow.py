"""Dynamic grids and narrow floats: the arithmetic, the gradients, FakeQuantize around them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.narrow import dynamically_quantized, on_own_grids, rounded_to
from fxquant.quant.spec import DYNAMIC_ACTIVATIONS, QuantSpec

NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_each_row_has_its_own_grid() -> None:
    x = values(5, 40) * torch.tensor([[1e-3], [1.0], [50.0], [0.0], [3.0]]) + 0.1
    found = dynamically_quantized(x, (-1,), -128, 127)
    for row, rounded in zip(x.numpy(), found.numpy(), strict=True):
        low, high = min(float(row.min()), 0.0), max(float(row.max()), 0.0)
        step = (high - low) / 255
        steps = rounded / step
        assert np.abs(rounded - row).max() <= step * 0.51
        assert np.abs(steps - np.round(steps)).max() < 1e-3


def test_zero_is_exact_and_stays_alone() -> None:
    x = torch.tensor([[0.0, 3.0, -1.0], [0.0, 0.0, 0.0]])
    found = dynamically_quantized(x, (-1,), -128, 127)
    assert found[:, 0].tolist() == [0.0, 0.0] and found[1].tolist() == [0.0] * 3


def test_a_grid_may_hold_along_several_dimensions() -> None:
    x = values(2, 3, 4, 4)
    whole = dynamically_quantized(x, (-3, -2, -1), -128, 127)
    flat = dynamically_quantized(x.reshape(2, -1), (-1,), -128, 127).reshape(x.shape)
    assert torch.equal(whole, flat)
    pixels = dynamically_quantized(x, (-3,), -128, 127)
    last = dynamically_quantized(x.movedim(1, -1), (-1,), -128, 127).movedim(-1, 1)
    assert torch.equal(pixels, last)


def test_the_integers_are_bytes() -> None:
    centered, scale = on_own_grids(values(7, 100) * 3 + 1, (-1,))
    assert (centered == centered.round()).all()
    assert (centered.amax(1) - centered.amin(1) <= 255).all() and scale.shape == (7, 1)


def test_the_operator_passes_torch_s_own_checks() -> None:
    x = values(3, 8).requires_grad_()
    dynamic_quantize = torch.ops.fxquant.dynamic_quantize.default
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(dynamic_quantize, (x, [-1]), test_utils=checks)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_the_cast(dtype: str) -> None:
    x = values(1000) * 10
    assert torch.equal(rounded_to(x, dtype), x.to(NARROW[dtype]).float())


def test_what_float16_cannot_hold_becomes_its_largest() -> None:
    assert rounded_to(torch.tensor([1e5, -1e9]), "float16").tolist() == [65504.0, -65504.0]
    assert rounded_to(torch.tensor([1e38]), "bfloat16").isfinite().all()


@pytest.mark.parametrize(
    "spec", [QuantSpec("bfloat16"), QuantSpec("float16"), DYNAMIC_ACTIVATIONS], ids=str
)
def test_gradients_pass_unchanged(spec: QuantSpec) -> None:
    module = FakeQuantize(spec)
    module.switch(observing=True, quantizing=True)
    x = values(4, 6).requires_grad_()
    upstream = values(4, 6, seed=1) * 1e-3 + 1  # bfloat16 would round these
    module(x).backward(upstream)
    assert torch.equal(x.grad, upstream)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [QuantSpec("bfloat16"), DYNAMIC_ACTIVATIONS], ids=str)
def test_nothing_needs_to_be_observed(spec: QuantSpec) -> None:
    module = FakeQuantize(spec)
    assert module.problem() is None and not module.has_grid
    module.switch(observing=True, quantizing=True)
    x = values(4, 6)
    assert not torch.equal(module(x), x) and not module.observer.seen
    module.take_parameters()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_rounding_runs_compiled() -> None:
    x = values(3, 5)
    compiled = torch.compile(lambda v: rounded_to(v, "bfloat16") * 2, backend="eager")
    assert torch.equal(compiled(x), rounded_to(x, "bfloat16") * 2)
