"""What cannot be traced is refused with the user's line and a way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxquant.errors import FxquantError, InputError, TraceError
from fxquant.tracing import trace


def branch(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def loop(x: Tensor) -> Tensor:
    while x.mean() < 3:
        x = x + 1
    return x


def integer(x: Tensor) -> Tensor:
    return x[: int(x.max())]


def real(x: Tensor) -> Tensor:
    return x * float(x.mean())


def item(x: Tensor) -> Tensor:
    return x / x.max().item()


def listed(x: Tensor) -> Any:
    return x + sum(x.flatten().tolist())


def member(x: Tensor) -> Tensor:
    return x + (0.5 in x)


def same(x: Tensor) -> Tensor:
    return x + torch.equal(x, x * 2)


def numpy_method(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().cpu().numpy())


def numpy_function(x: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(x) + 1)


def rebuilt(x: Tensor) -> Tensor:
    return torch.tensor([x.sum(), x.mean()])


def nonzero(x: Tensor) -> Tensor:
    return x.nonzero()


def masked(x: Tensor) -> Tensor:
    return x[x > 0]


def unique(x: Tensor) -> Any:
    return x.unique()


def where(x: Tensor) -> Tensor:
    return torch.where(x > 0)[0]


DATA = "depends? on the values of a traced tensor"
REFUSED: list[tuple[Callable[..., Any], str, str]] = [
    (branch, DATA, "torch.where"),
    (loop, DATA, "torch.where"),
    (integer, DATA, "keep the value a tensor"),
    (real, DATA, "keep the value a tensor"),
    (item, DATA, "keep the value a tensor"),
    (listed, DATA, "torch functions"),
    (member, DATA, "torch.where"),
    (same, DATA, "torch.where"),
    (numpy_method, DATA, "with torch functions"),
    (numpy_function, DATA, "with torch functions"),
    (rebuilt, DATA, "torch.stack"),
    (nonzero, DATA, "fixed shape"),
    (masked, DATA, "fixed shape"),
    (unique, DATA, "fixed shape"),
    (where, DATA, "fixed shape"),
]


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize(
    ("function", "what", "fix"), REFUSED, ids=lambda e: getattr(e, "__name__", "")
)
def test_data_dependence_is_refused(
    function: Callable[..., Any], what: str, fix: str, fake: bool
) -> None:
    """File, line and code of the user, and a fix."""
    code = function.__code__
    with pytest.raises(TraceError, match=what) as caught:
        trace(function, (torch.rand(4, 3),), fake=fake)
    text = str(caught.value)
    assert f"test_tracing_errors.py:{code.co_firstlineno + 1}" in text
    assert fix in text.split("fix ")[1]


def test_error_text_is_pinned() -> None:
    """The whole text once."""
    with pytest.raises(TraceError) as caught:
        trace(branch, (torch.rand(4, 3),))
    line = branch.__code__.co_firstlineno + 1
    assert str(caught.value).splitlines() == [
        "Python control flow or a Python number depends on the values of a traced tensor (bool)",
        f"  from   test_tracing_errors.py:{line}  return x if x.sum() > 0 else -x",
        "  fix    use torch.where(condition, a, b) instead of branching, or branch on shapes only",
    ]


def scripted_function(x: Tensor) -> Any:
    return SCRIPTED(x * 2) + 1


def gradient(x: Tensor) -> Tensor:
    x.sum().backward()
    return x


def replaced_data(x: Tensor) -> Tensor:
    y = x * 1
    y.data = x
    return y


def vectorized(x: Tensor) -> Tensor:
    y: Tensor = torch.func.vmap(lambda row: row * 2)(x)
    return y + 1


def generator(x: Tensor) -> Tensor:
    return torch.bernoulli(x.sigmoid(), generator=torch.Generator())


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.jit is deprecated
    SCRIPTED = torch.jit.trace(nn.ReLU(), torch.randn(2), check_trace=False)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (scripted_function, "scripted module"),
        (gradient, "gradients are taken inside the model"),
        (replaced_data, "data of a traced tensor are replaced"),
        (vectorized, "code that tracing cannot see"),
        (generator, "type Generator has no form in a graph"),
    ],
)
def test_what_has_no_form_in_a_graph(function: Callable[..., Any], what: str) -> None:
    """Clear errors, not wrong graphs."""
    with pytest.raises(TraceError, match=what):
        trace(function, (torch.rand(4, 3),))


def test_models_that_cannot_be_followed() -> None:
    """Scripted and uninitialized models, and dynamic shapes."""
    with pytest.raises(TraceError, match="scripted module"):
        trace(SCRIPTED, (torch.randn(2),))
    with pytest.raises(TraceError, match="not initialized yet"):
        trace(nn.LazyLinear(3), (torch.randn(2, 2),))
    model = nn.Module()
    model.meta = nn.Linear(2, 2)
    with pytest.raises(TraceError, match="named 'meta', a name that torch.fx uses itself"):
        trace(model, (torch.randn(2, 2),))


def test_example_inputs_are_checked() -> None:
    """Missing, unknown and impossible arguments."""
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match="missing a required argument: 'input'"):
        trace(model, ())
    with pytest.raises(InputError, match="unexpected keyword argument 'mask'"):
        trace(model, (torch.randn(2, 2),), kwargs={"mask": None})
    with pytest.raises(InputError, match="example_inputs is a dict"):
        trace(model, {"input": torch.randn(2, 2)})
    with pytest.raises(InputError, match="input is a object, which is neither a tensor"):
        trace(model, (object(),))
    with pytest.raises(InputError, match="input is a torch.sparse_coo torch.float32 tensor"):
        trace(model, (torch.eye(2).to_sparse(),))
    with pytest.raises(InputError, match="input is a ndarray"):
        trace(model, (np.zeros((2, 2)),))
    with pytest.raises(InputError, match=r"output\.1 is a function"):
        trace(lambda x: (x, branch), (torch.zeros(1),))


def test_all_errors_are_ours() -> None:
    """One base class catches them."""
    assert issubclass(TraceError, FxquantError) and issubclass(InputError, ValueError)
