"""What `--input` may say, and what it may not."""

from __future__ import annotations

import pytest
import torch

from fxquant.cli.input_spec import InputSpec, parse_input, parse_inputs, random_call
from fxquant.errors import InputError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1,3,8,8", InputSpec((1, 3, 8, 8))),
        ("4", InputSpec((4,))),
        ("x=1,8", InputSpec((1, 8), name="x")),
        ("1,8:int64", InputSpec((1, 8), torch.int64)),
        ("mask=2,8:bool", InputSpec((2, 8), torch.bool, "mask")),
    ],
)
def test_text_and_spec_are_the_same(text: str, spec: InputSpec) -> None:
    assert parse_input(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a list of sizes"),
        ("1,3,a", "'1,3,a' is not a list of sizes"),
        ("1,0,3", "at least 1"),
        ("1,3:int99", "no dtype 'int99'"),
        ("a b=1,3", "'a b' is not the name of an argument"),
        ("=1,3", "'' is not the name of an argument"),
    ],
)
def test_malformed_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_input(text)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "not known"),
        (["x=1,3", "1,3"], "--input 1,3 has no name, and others have one"),
        (["x=1,3", "x=1,3"], "two inputs are named 'x'"),
    ],
)
def test_inputs_that_do_not_go_together(texts: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_inputs(texts)


def test_named_inputs_become_keywords() -> None:
    call = random_call(parse_inputs(["ids=1,4:int64", "mask=1,4:bool"]))
    assert call.args == ()
    assert {name: value.dtype for name, value in call.kwargs.items()} == {
        "ids": torch.int64,
        "mask": torch.bool,
    }


def test_random_inputs_are_the_same_for_one_seed() -> None:
    specs = parse_inputs(["1,3,4,4"])
    assert torch.equal(random_call(specs, 7).args[0], random_call(specs, 7).args[0])
    assert not torch.equal(random_call(specs, 7).args[0], random_call(specs, 8).args[0])
