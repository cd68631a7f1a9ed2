"""Random programs of views and in-place operators compute what eager PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx import GraphModule

from fxquant.passes.functionalize import Functionalize
from fxquant.tracing.trace import trace

Step = Callable[[list[Tensor], Tensor], Tensor | None]

# Each view gives a new tensor of the program, or None where the shape does not allow it.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda t: t[0],
    "last": lambda t: t[-1],
    "half": lambda t: t[: max(1, t.shape[0] // 2)],
    "every second": lambda t: t[..., ::2],
    "inner": lambda t: t[..., 1:],
    "transposed": lambda t: t.transpose(0, -1),
    "flat": lambda t: t.reshape(-1),
    "reversed dims": lambda t: t.permute(*reversed(range(t.dim()))),
    "unsqueezed": lambda t: t.unsqueeze(1),
    "squeezed": lambda t: t.squeeze(),
    "chunk": lambda t: t.chunk(2)[-1],
    "split": lambda t: t.split(1, -1)[0],
    "unbound": lambda t: t.unbind()[0],
    "narrowed": lambda t: t.narrow(0, 0, 1),
    "detached": lambda t: t.detach(),
    "diagonal": lambda t: t.diagonal(0, 0, -1) if t.dim() > 1 else t[:],
    "contiguous": lambda t: t.contiguous(),
    "cloned": lambda t: t.clone(),
    "converted": lambda t: t.to(torch.float32),
    "view_as": lambda t: t.view_as(t),
}
WRITES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda t, value: t.add_(value),
    "augmented": lambda t, value: t.__imul__(value),
    "relu": lambda t, _: torch.relu_(t),
    "fill": lambda t, _: t.fill_(3.0),
    "zero": lambda t, _: t.zero_(),
    "set first": lambda t, value: t.__setitem__(0, value),
    "set slice": lambda t, value: t.__setitem__((..., slice(None, None, 2)), value),
    "set all": lambda t, _: t.__setitem__(slice(None), t * 2),
    "set index": lambda t, value: t.__setitem__(torch.tensor([0]), value),
    "set mask": lambda t, value: t.__setitem__(t > 0, 7.0),
    "masked fill": lambda t, _: t.masked_fill_(t < 0, 0.5),
    "copy": lambda t, value: t.copy_(value),
    "clamp": lambda t, _: t.clamp_(-1, 1),
    "out": lambda t, value: torch.mul(t, value, out=t),
}

programs = st.lists(
    st.tuples(st.sampled_from([*VIEWS, *WRITES]), st.integers(0, 9), st.floats(-2, 2, width=32)),
    min_size=1,
    max_size=8,
)
shapes = st.sampled_from([(4,), (4, 6), (2, 3, 4), (1, 4, 2)])


def run(x: Tensor, program: list[tuple[str, int, float]]) -> tuple[Tensor, ...]:
    """Apply the steps; each picks one of the tensors made so far."""
    tensors = [x * 1]
    for name, pick, value in program:
        tensor = tensors[pick % len(tensors)]
        if tensor.dim() == 0 or 0 in tensor.shape:
            continue
        if name in VIEWS:
            tensors.append(VIEWS[name](tensor))
        else:
            WRITES[name](tensor, tensors[0].sum() * 0 + value)
    return tuple(tensors)


def functionalized(function: Callable[..., object], *inputs: Tensor) -> GraphModule:
    """The core graph of a function."""
    return Functionalize().run(trace(function, inputs)).graph_module


@settings(max_examples=150, deadline=None)
@given(programs, shapes)
def test_programs_of_views_and_writes(
    program: list[tuple[str, int, float]], shape: tuple[int, ...]
) -> None:
    graph_module = functionalized(lambda x: run(x, program), torch.randn(shape))
    x = torch.randn(shape)
    before = x.clone()
    for got, wanted in zip(graph_module(x), run(x, program), strict=True):
        assert got.shape == wanted.shape
        assert torch.equal(got, wanted)
    assert torch.equal(x, before)
