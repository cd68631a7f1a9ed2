"""A graph is called like the model, checks its inputs, and returns what the model returns."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, fx, nn

from fxquant.errors import InputError
from fxquant.ir.state import state_of
from fxquant.tracing import Signature, trace
from tests.tracing.replay import assert_replays, tensors_of

X = torch.randn(2, 3)


class Pair(NamedTuple):
    """Two tensors."""

    left: Tensor
    right: Tensor


@dataclasses.dataclass
class Boxes:
    """A dataclass of results."""

    corners: Tensor
    labels: Tensor | None
    scale: float = 2.0
    area: Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.area = self.corners.sum()


@dataclasses.dataclass
class ModelOutput(OrderedDict[str, Any]):
    """A dict that is a dataclass, whose fields without a value are no keys."""

    logits: Tensor | None = None
    loss: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if getattr(self, each.name) is not None:
                super().__setitem__(each.name, getattr(self, each.name))


class Many(nn.Module):
    """Arguments of every kind."""

    def forward(
        self,
        x: Tensor,
        pair: tuple[Tensor, list[Tensor]],
        options: dict[str, Any],
        *rest: Tensor,
        mask: Tensor | None = None,
        scale: float = 1.0,
        mode: str = "plain",
        **named: Tensor,
    ) -> dict[str, Any]:
        y = x + pair[0] * pair[1][0] - options["bias"] * options["factor"]
        y = y + sum(rest, torch.zeros(())) + sum(named.values(), torch.zeros(()))
        if mask is not None:
            y = y * mask
        return {"y": y * scale, "parts": [y, (x, 3)], "mode": mode, "pair": Pair(y, x)}


def many(**changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for `Many`."""
    options = {"bias": torch.ones(3), "factor": 2}
    kwargs = {"mask": torch.rand(2, 3), "mode": "plain", "extra": torch.ones(1), **changes}
    return (X, (X * 2, [X * 3]), options, X, X + 1), kwargs


def test_arguments_of_every_kind() -> None:
    """Nested, variable, keyword, fixed and left out."""
    args, kwargs = many()
    graph = assert_replays(Many(), *args, **kwargs)
    signature = state_of(graph).signature
    assert signature.input_names == (
        "x", "pair_0", "pair_1_0", "options_bias", "rest_0", "rest_1", "mask", "named_extra",
    )  # fmt: skip
    assert signature.output_names == ("y", "parts_0", "parts_1_0", "pair_left", "pair_right")
    assert [n.name for n in graph.graph.nodes if n.op == "placeholder"] == [*signature.input_names]
    same = graph(*args, **dict(reversed(kwargs.items())), scale=1.0)
    assert torch.equal(same["y"], graph(*args, **kwargs)["y"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": None}, "input mask is a NoneType, not a tensor"),
        ({"mask": torch.ones(2, 4)}, r"input mask has shape \[2, 4\], .* traced with \[2, 3\]"),
        (
            {"mask": torch.ones(2, 3).double()},
            r"dtype torch.float64, .*(.|\n)*mask.to\(torch.float32\)",
        ),
        ({"scale": 2.0}, "scale is 2.0, but the model was traced with 1.0"),
        ({"scale": X}, r"scale is a tensor of shape \[2, 3\], but"),
        ({"mode": "other"}, "mode is 'other', but the model was traced with 'plain'"),
        ({"more": X}, "named is a dict, but the model was traced with a dict of extra|named is"),
    ],
)
def test_calls_are_checked(changes: dict[str, Any], message: str) -> None:
    """Each wrong argument is named."""
    args, kwargs = many()
    graph = trace(Many(), args, kwargs=kwargs)
    with pytest.raises(InputError, match=message):
        graph(*args, **{**kwargs, **changes})


def test_missing_arguments_are_named() -> None:
    """As Python would."""
    graph = trace(nn.Linear(3, 2), (X,))
    with pytest.raises(InputError, match="missing a required argument: 'input'"):
        graph()
    with pytest.raises(InputError, match=r"input input has shape \[1, 3\]"):
        graph(X[:1])
    with pytest.raises(InputError, match="too many positional arguments"):
        graph(X, X)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: x * 2, ("output",)),
        (lambda x: (x, x + 1), ("output_0", "output_1")),
        (lambda x: [x], ("output_0",)),
        (lambda x: (x * 2,), ("output_0",)),
        (lambda x: {"logits": x + 1, "none": None}, ("logits",)),
        (lambda x: Pair(x + 1, x), ("left", "right")),
        (lambda x: Boxes(x + 1, None), ("corners", "area")),
        (
            lambda x: ModelOutput(logits=x + 1, hidden=(x, x * 2)),
            ("logits", "hidden_0", "hidden_1"),
        ),
        (lambda x: x.max(1), ("output_0", "output_1")),
        (lambda x: {"a": {"b": x + 1}, 3: torch.ones(2)}, ("a_b", "output_3")),
        (lambda x: None, ()),
    ],
)
def test_results_of_every_kind(function: Any, names: tuple[str, ...]) -> None:
    """Rebuilt in the model's own types, named for the file's outputs."""
    graph = assert_replays(function, X)
    signature = state_of(graph).signature
    assert signature.output_names == names
    shapes = [tuple(each.shape) for each in tensors_of(function(X))]
    assert [spec.shape for spec in signature.outputs] == shapes


def test_dataclass_inputs_and_reserved_names() -> None:
    """A dataclass argument; parameters called `input` and `self`-like names."""

    def function(box: Boxes, input: Tensor) -> Tensor:
        return box.corners * input + box.area

    graph = assert_replays(function, Boxes(X, None), X)
    assert state_of(graph).signature.input_names == ("box_corners", "box_area", "input")


def test_one_tensor_at_two_places() -> None:
    """Two inputs, though one object."""
    graph = trace(lambda a, b: a - b, (X, X))
    torch.testing.assert_close(graph(X, X + 1), X - (X + 1))


def test_interpreter_and_symbolic_trace() -> None:
    """Tools of torch.fx work on the graph."""
    graph = trace(Many(), many()[0], kwargs={"mask": X})
    args = (*many()[0][:3],)
    plain = trace(Many(), args)
    assert torch.equal(fx.Interpreter(plain).run(*args)["y"], plain(*args)["y"])
    assert "signature.flatten(args, kwargs)" in graph.code
    again = trace(plain, args)
    assert torch.equal(again(*args)["y"], plain(*args)["y"])


@pytest.mark.parametrize("copies", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_of_a_signature(copies: Any) -> None:
    """It pickles, and deep copies are cheap."""
    args, kwargs = many()
    signature: Signature = copies(state_of(trace(Many(), args, kwargs=kwargs)).signature)
    assert [t.shape for t in signature.flatten(args, kwargs)] == [s.shape for s in signature.inputs]
    fakes = signature.fake_inputs()
    assert [t.shape for t in fakes] == [spec.shape for spec in signature.inputs]
