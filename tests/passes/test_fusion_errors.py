"""A fusion that cannot be is refused when it is registered; the text says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant.errors import InputError, RegistrationError
from fxquant.passes.fusion import registry
from fxquant.passes.fusion.registry import registered_fusions


@pytest.fixture(autouse=True)
def registry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten afterwards."""
    registered_fusions()
    monkeypatch.setattr(registry, "_fusions", dict(registry._fusions))


def refusal(pattern: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(RegistrationError) as caught:
        fq.register_fusion("mine", **options)(pattern)
    assert "mine" not in registered_fusions()
    return str(caught.value)


def test_a_pattern_that_functionalizes_to_nothing() -> None:
    assert refusal(lambda x: x.contiguous().clone()) == (
        "the pattern of 'mine' functionalizes to nothing\n"
        "  fix    a pattern needs an operator of the core dialect (docs/core_dialect.md)"
    )


def test_an_output_that_nothing_makes() -> None:
    assert refusal(lambda x: (torch.relu(x), x)) == (
        "the pattern of 'mine' has an output 1 that no operator of it makes\n"
        "  fix    return only what the pattern computes"
    )


def test_an_output_that_is_not_tied_to_the_others() -> None:
    assert refusal(lambda x, y: (torch.relu(x), torch.relu(y))) == (
        "the pattern of 'mine' has an output 1 that shares no value with those before it\n"
        "  fix    make it a pattern of its own"
    )


def test_a_taken_name_says_both_places() -> None:
    def first(x: Tensor) -> Tensor:
        return torch.sin(torch.cos(x))

    def second(x: Tensor) -> Tensor:
        return torch.cos(torch.sin(x))

    fq.register_fusion("mine")(first)
    fq.register_fusion("mine")(first)  # running a notebook's cell again is no conflict
    with pytest.raises(RegistrationError) as caught:
        fq.register_fusion("mine")(second)
    place = f"{__name__}.test_a_taken_name_says_both_places.<locals>"
    assert str(caught.value) == (
        f"the fusion name 'mine' is taken by {place}.first; {place}.second wants it too\n"
        "  fix    choose another name, or register with override=True"
    )
    fq.register_fusion("mine", override=True)(second)
    assert registered_fusions()["mine"].place.endswith("second")


def test_a_replacement_of_another_shape() -> None:
    assert refusal(lambda x: torch.relu(torch.sin(x)), replace=lambda x: torch.sin(x)[0]) == (
        "the replacement of 'mine' gives f32[4,8,8] where the pattern gives f32[2,4,8,8]\n"
        "  fix    a replacement gives the same values as its pattern"
    )


def test_a_replacement_of_another_dtype_or_number() -> None:
    text = refusal(lambda x: torch.relu(x), replace=lambda x: torch.relu(x).double())
    assert "gives f64[2,4,8,8] where the pattern gives f32[2,4,8,8]" in text
    text = refusal(lambda x: (torch.sin(x), torch.cos(x)), replace=lambda x: torch.sin(x))
    assert "gives 1 values where the pattern gives 2" in text


def test_a_replacement_that_fails() -> None:
    def other_parameters(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    text = refusal(lambda x: torch.relu(x), replace=other_parameters)
    assert text.startswith("the replacement of 'mine' fails: TypeError:")
    assert "missing 1 required positional argument: 'y'" in text
    assert text.endswith("fix    it takes the parameters of the pattern")


def test_a_pattern_that_fails_on_its_shapes() -> None:
    text = refusal(lambda x, weight: F.conv2d(x, weight, padding=1) @ x, shapes={"x": (1, 2)})
    assert text.startswith("the pattern of 'mine' fails on its example shapes: RuntimeError:")
    assert 'fix    say shapes={"weight": (8, 4, 3, 3)}' in text


def test_a_pattern_that_looks_at_values() -> None:
    def branches(x: Tensor) -> Tensor:
        return torch.relu(x) if x.sum() > 0 else x

    assert refusal(branches).startswith("the pattern of 'mine' cannot be followed:")


def test_a_pattern_with_a_module() -> None:
    text = refusal(lambda x: nn.functional.dropout(torch.relu(x), training=True))
    assert "holds the module" in text
    assert "fix    write it as functions" in text


def test_a_parameter_that_is_not_used() -> None:
    text = refusal(lambda x, y: torch.relu(x))
    assert text.startswith("the pattern of 'mine' does not use its parameter y")


def test_a_wildcard_that_does_not_stand_in_the_pattern() -> None:
    def inverse(x: Tensor, scale: float = fq.any_float) -> Tensor:
        return torch.relu(x) * (1 / (scale + 1))

    assert refusal(inverse) == (
        "the pattern of 'mine' has no literal that is scale itself\n"
        "  fix    let the parameter stand in an operator as it is"
    )


def test_parameters_must_be_plain() -> None:
    text = refusal(lambda *tensors: torch.relu(tensors[0]))
    assert "the pattern of 'mine' takes *tensors, and its parameters must be plain ones" in text


def test_several_outputs_cannot_be_a_group() -> None:
    text = refusal(lambda x: (torch.sin(x), torch.cos(x)))
    assert "the pattern of 'mine' has several outputs and no replacement" in text


def test_explaining_an_unknown_fusion_or_a_foreign_graph() -> None:
    graph_module = fq.trace(lambda x: torch.relu(x), (torch.zeros(2),))
    with pytest.raises(RegistrationError, match="there is no fusion named 'gelo'"):
        fq.explain_match("gelo", graph_module)
    foreign = torch.fx.symbolic_trace(nn.ReLU())
    with pytest.raises(InputError, match="the graph was not made by trace"):
        fq.explain_match("silu", foreign)
