"""Functions, methods, operators, in-place writes and constants replay bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxquant.tracing import trace
from tests.tracing.replay import assert_replays, targets

IMAGE = torch.randn(2, 4, 6, 6)


def reflected(x: Tensor) -> Tensor:
    """Operators with the number at the left."""
    return (1 - x) + 2 / (x + 9) + 2**x + (3.0 * x) - -x


def comparisons(x: Tensor) -> Tensor:
    """Masks by comparison and logic."""
    return torch.where((x > 0) & ~(x == 1) | (x != x), x, x.abs())


def in_place(x: Tensor) -> Tensor:
    """Methods, augmented assignment and functions that write."""
    y = x * 1
    y += 2
    y.mul_(3).sub_(1)
    torch.relu_(y)
    F.relu(y, inplace=True)
    y -= x
    return y


def in_place_view(x: Tensor) -> Tensor:
    """Writing a view writes what it views."""
    y = x.clone()
    part = y[:, 0]
    part.add_(5)
    y[..., 0].zero_()
    return y


def set_item(x: Tensor) -> Tensor:
    """Writing by index."""
    y = x.clone()
    y[:, 0] = 1.5
    y[:, 1:3] = x[:, :2] * 2
    y[0, ..., 1] += 1
    y[y > 1] = 0
    return y


def set_item_of_constant(x: Tensor) -> Tensor:
    """A constant that is filled with traced values starts afresh at each call."""
    out = torch.zeros(2, 4, 6, 6)
    out[:, ::2] += x[:, ::2]
    out[:, 1::2] = x[:, :2]
    out += out
    return out


def write_view_of_constant(x: Tensor) -> Tensor:
    """Writing through a view of a constant."""
    table = torch.arange(8.0).reshape(2, 4)
    row = table[1]
    row += x[0, :, 0, 0]
    other = table.t()
    return table.sum() + other[0] + row.mean()


def changed_constant(x: Tensor) -> Tensor:
    """A constant that is changed between two uses."""
    c = torch.ones(6)
    y = x + c
    c *= 3
    return y * c


def made_on_the_way(x: Tensor) -> Tensor:
    """Constants by factory, by list, by numpy; Python numbers from shapes."""
    b, _, h, w = x.shape
    grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).float()
    scale = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1) * float(grid.max())
    x = x[:, :2] * scale + grid
    x = (
        torch.mul(x, float(np.float32(2))) * np.float32(3).item()
        + torch.from_numpy(np.ones(6, np.float32))
        + x.new_ones(1)
    )
    assert b == len(x)
    return x + torch.zeros_like(x) + torch.full_like(x, h)


def several_results(x: Tensor) -> Any:
    """Tuples, named tuples and lists of results."""
    value, index = x.max(1)
    other = torch.max(x, dim=2).values
    left, right = x.chunk(2, 1)
    a, *rest = x.split([1, 2, 1], dim=1)
    top = torch.topk(x, 2, dim=1)
    rows = [row * 2 for row in x]
    total = value + index + left.sum() - right.sum() + other.sum() + a.sum()
    total = total + torch.stack([r.sum() for r in rest]).sum()
    return total + top[0].sum() + top.indices.sum() + rows[0].sum()


def out_argument(x: Tensor) -> Tensor:
    """Results written to `out=`."""
    y = torch.empty_like(x)
    torch.add(x, 1, out=y)
    z = torch.empty(2, 4, 6, 6)
    torch.mul(y, x, out=z)
    return y + z


def properties(x: Tensor) -> Tensor:
    """Properties that are values, and those that are not."""
    assert x.ndim == 4 and x.device.type == "cpu" and x.dtype == torch.float32
    return x.mT @ x.data.transpose(-1, -2).mT + x.size(1) + x.numel() + x.shape[-1]


def functions(x: Tensor) -> Any:
    """A few of `torch.nn.functional`, `torch.linalg`, `torch.special`, `torch.fft`."""
    y = F.gelu(F.pad(x, (1, 1)), approximate="tanh")
    y = F.interpolate(y, scale_factor=2.0, mode="bilinear") + F.softmax(x, -1).sum()
    y = F.max_pool2d(y, 2) + F.avg_pool2d(y, 2) + F.adaptive_avg_pool2d(y, 1)
    y = F.hardswish(y) + F.leaky_relu(y, 0.2) + F.normalize(y, dim=1)
    y = F.layer_norm(y, (8,)) + F.group_norm(y, 2) + F.pixel_shuffle(x, 2).sum()
    y = torch.einsum("bchw,bdhw->bcd", y, y).unsqueeze(-1) + torch.linalg.norm(y)
    y = y + torch.special.expit(y) + torch.fft.rfft(y, dim=1).real.sum()
    z: Tensor = y.norm()
    return F.scaled_dot_product_attention(y, y, y) + z + y.unflatten(1, (2, 2)).sum()


def reshaping_in_place(x: Tensor) -> Tensor:
    """In-place changes of the shape."""
    y = x.clone()
    y.unsqueeze_(0)
    y.transpose_(0, 1)
    return y.squeeze_()


def constant_mask(x: Tensor) -> Tensor:
    """A mask that is known at trace time selects places."""
    mask = torch.arange(6) % 2 == 0
    return x[..., mask] + x[..., ~mask]


def dispatcher(x: Tensor) -> Tensor:
    """Operators called through `torch.ops`."""
    y: Tensor = torch.ops.aten.relu(x) + torch.ops.aten.add.Tensor(x, x)
    return y


def printing(x: Tensor) -> Tensor:
    """Text of a tensor is not a computation."""
    assert f"{x}" and repr(x) and f"{x.shape}"
    return x + 1


def branches(x: Tensor) -> Tensor:
    """Python control flow on what is known: shapes, types, constants."""
    threshold = torch.tensor(3.0)
    if x.shape[0] > 1 and threshold > 2 and threshold.item() == 3:
        x = x * 2
    for index in range(len(x)):
        x = x + index
    return x if x.is_floating_point() else -x


FUNCTIONS = [
    reflected,
    comparisons,
    in_place,
    in_place_view,
    set_item,
    set_item_of_constant,
    write_view_of_constant,
    changed_constant,
    made_on_the_way,
    several_results,
    out_argument,
    properties,
    functions,
    reshaping_in_place,
    constant_mask,
    dispatcher,
    printing,
    branches,
]


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: str(f.__name__))
def test_function_replays(function: Callable[..., Tensor], fake: bool) -> None:
    """Each function above, on inputs other than the example."""
    assert_replays(function, IMAGE, fake=fake)


class Direct(nn.Module):
    """Parameters and buffers used without a module."""

    scale: Tensor
    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.table = nn.ParameterList([torch.randn(4), torch.randn(4)])
        self.by_name = nn.ParameterDict({"gain": torch.randn(4)})
        self.register_buffer("scale", torch.rand(4))
        self.register_buffer("hidden", torch.rand(4), persistent=False)
        self.register_buffer("counter", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.weight.norm(dim=1, keepdim=True)
        if self.training:
            self.counter += 1
            self.scale = self.scale * 0.9 + x.mean() * 0.1
        y = F.linear(x, weight) * self.scale + self.table[0] * self.table[1]
        z: Tensor = y + self.by_name["gain"] + self.counter + self.hidden
        return z


@pytest.mark.parametrize("fake", [True, False])
def test_parameters_and_buffers_are_read_by_their_names(fake: bool) -> None:
    """Also buffers that the forward pass writes or replaces."""
    graph = assert_replays(Direct(), torch.randn(3, 4), fake=fake)
    names = [n.target for n in graph.graph.nodes if n.op == "get_attr"]
    assert {"weight", "scale", "table.0", "table.1", "by_name.gain", "counter"} <= set(names)
    assert len(names) == len(set(names))


def test_constants_are_folded() -> None:
    """What does not depend on the input is computed once, at trace time."""

    def function(x: Tensor) -> Tensor:
        positions = torch.arange(4).float().sin().cumsum(0)
        return x + positions

    graph = trace(function, (torch.randn(4),))
    assert targets(graph) == ["_constant_0", "add"]
    assert "_constant_0" not in graph.state_dict()


def test_random_numbers_are_drawn_at_each_call() -> None:
    """A function without inputs is no constant if it is random."""

    def function(x: Tensor) -> Tensor:
        noise = torch.empty(4).bernoulli_(0.5)
        return x + torch.rand(4) + noise + torch.rand_like(x)

    graph = trace(function, (torch.zeros(4),))
    assert not torch.equal(graph(torch.zeros(4)), graph(torch.zeros(4)))
    assert_replays(function, torch.randn(4))


def test_default_arguments_are_left_out() -> None:
    """`F.relu(x)` has no `inplace=False` in the graph."""
    graph = trace(lambda x: F.softmax(F.relu(x), dim=-1), (torch.randn(2, 3),))
    kwargs: list[Any] = [dict(n.kwargs) for n in graph.graph.nodes if n.op == "call_function"]
    assert kwargs == [{}, {"dim": -1}]


def test_nodes_know_the_line_of_the_user() -> None:
    """The innermost line that is not torch's."""
    graph = trace(in_place, (IMAGE,))
    sources = [n.meta["source"] for n in graph.graph.nodes if n.op == "call_method"]
    assert sources[0].code == "y = x * 1"
    assert sources[0].file == __file__
