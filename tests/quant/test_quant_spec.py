"""Specs refuse what no kernel could store."""

from __future__ import annotations

import pytest

from fxquant.errors import ConfigError
from fxquant.quant.spec import INT8_WEIGHTS, QuantSpec, precision


def test_ranges_come_from_the_dtype() -> None:
    assert (QuantSpec("int8").low, QuantSpec("int8").high) == (-128, 127)
    assert (INT8_WEIGHTS.low, INT8_WEIGHTS.high) == (-127, 127)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be quantized to 'int7'"):
        QuantSpec("int7")


@pytest.mark.parametrize(("qmin", "qmax"), [(-129, 127), (0, 300), (5, 5)])
def test_a_range_outside_the_dtype_is_refused(qmin: int, qmax: int) -> None:
    with pytest.raises(ConfigError, match="are not a range of int8"):
        QuantSpec("int8", qmin=qmin, qmax=qmax)


def test_fixed_specs_print_their_parameters() -> None:
    assert str(QuantSpec(fixed=(1 / 256, -128))) == "int8 fixed<0.003906,-128>"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="no precision 'int3'"):
        precision("int3")


def test_only_quantized_precisions_have_specs() -> None:
    assert precision("int8").quantized
    assert not precision("float32").quantized
