"""Samples fit the file whatever layout and dtype it takes; what cannot fit is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.sample_inputs import flat_inputs
from fxquant.backends.tflite.verify import verify
from fxquant.errors import InputError
from fxquant.tracing.codegen import SignatureCodeGen
from fxquant.tracing.signature import Signature, collect_arguments, specs
from tests.backends.tflite.hand_graph import HandGraph, int8_net, random_float, random_int8


def test_floats_channels_first_become_integers_channels_last() -> None:
    real = random_float(1, 4, 8, 8)
    (found,) = flat_inputs(int8_net(), real)
    expected = torch.round(real.movedim(1, -1) / 0.05).sub(3).clamp(-128, 127).to(torch.int8)
    assert torch.equal(found, expected)
    assert verify(int8_net(), None, [real]).ok


def test_integers_as_the_file_takes_them_are_not_touched() -> None:
    x = random_int8(1, 8, 8, 4)
    assert torch.equal(flat_inputs(int8_net(), {"x": x})[0], x)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((random_float(1, 8, 8, 5),), r"input x has shape \[1, 8, 8, 5\], not \[1, 8, 8, 4\]"),
        ((torch.zeros(1, 8, 8, 4, dtype=torch.int32),), "input x has dtype torch.int32"),
        ((random_float(1, 4, 8, 8),) * 2, "the file has 1 inputs, the sample 2"),
        ((3,), "input x is a int, not a tensor"),
    ],
)
def test_samples_that_do_not_fit(sample: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flat_inputs(int8_net(), sample)


def test_nested_and_keyword_arguments_go_by_the_signature() -> None:
    def forward(pair: tuple[Tensor, Tensor], *, scale: Tensor) -> None: ...

    first, second, scale = (random_float(2, seed=seed) for seed in range(3))
    structure, named = collect_arguments({"pair": (first, second), "scale": scale})
    graph = HandGraph()
    inputs = [
        graph.input(spec.name, value)
        for spec, value in zip(specs(named), (first,) * 3, strict=True)
    ]
    total = graph.call(tfl.add, graph.call(tfl.add, *inputs[:2]), inputs[2])
    net = graph.finish(total)
    signature = Signature(inspect.signature(forward), specs(named), structure)
    net.graph.set_codegen(SignatureCodeGen(signature))
    sample = {"pair": (first, second), "scale": scale}
    for found, wanted in zip(flat_inputs(net, sample), (first, second, scale), strict=True):
        assert torch.equal(found, wanted)
    assert verify(net, None, [sample]).ok
