"""Errors print in one shape and survive pickling, so that worker processes can raise them."""

from __future__ import annotations

import pickle

from fxquant.errors import FxquantError, Problem, UnsupportedOp


def test_an_error_echoes_locates_states_and_advises() -> None:
    error = UnsupportedOp(
        "tflite has no int8 kernel for aten.erf",
        node="%erf = erf(%div) : f32[1,128]",
        source="model.py:41  torch.erf(x)",
        fix='keep it in float: keep_float=["erf"]',
    )
    assert str(error).splitlines() == [
        "tflite has no int8 kernel for aten.erf",
        "  node   %erf = erf(%div) : f32[1,128]",
        "  from   model.py:41  torch.erf(x)",
        '  fix    keep it in float: keep_float=["erf"]',
    ]


def test_further_problems_are_listed_below() -> None:
    error = FxquantError("two things", problems=[Problem("first"), Problem("second", fix="mend")])
    assert str(error).splitlines() == ["two things", "  first", "  second", "    fix    mend"]


def test_an_error_survives_pickling() -> None:
    error = UnsupportedOp("what", fix="fix", problems=[Problem("more")])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UnsupportedOp
    assert str(again) == str(error)
