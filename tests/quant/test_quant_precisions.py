"""The precisions that a configuration can name, and what each needs."""

from __future__ import annotations

import pytest

from fxquant.errors import ConfigError
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.constraints import WeightForms
from fxquant.quant.spec import PRECISIONS, QuantSpec, precision

FORMS = {
    "float32": "float",
    "int8": "static",
    "int8w4": "static",
    "uint8": "static",
    "int16x8": "static",
    "dynamic": "dynamic",
    "dynamic4": "dynamic",
    "int8_weights": "stored",
    "int4_weights": "stored",
    "float16": "stored",
    "bfloat16": "rounded",
}


def test_every_precision_has_the_form_that_is_meant() -> None:
    found = {name: str(each.form) for name, each in PRECISIONS.items() if name in FORMS}
    assert found == FORMS


@pytest.mark.parametrize("name", PRECISIONS)
def test_what_is_tried_instead_leads_to_float(name: str) -> None:
    seen: list[str] = []
    while name != "float32":
        assert name not in seen
        seen.append(name)
        name = precision(name).otherwise


def test_an_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        QuantConfig("int5")
    assert all(name in str(caught.value) for name in PRECISIONS)


@pytest.mark.parametrize("name", PRECISIONS)
def test_only_grids_known_beforehand_need_data(name: str) -> None:
    static = precision(name).form == "static"
    assert QuantConfig(name).needs_data == static
    assert QuantConfig("dynamic", rules=(Rule(op="relu", precision=name),)).needs_data == static


def test_specs_without_a_grid_print_in_a_word() -> None:
    assert str(QuantSpec("bfloat16").along(0)) == "bfloat16"
    assert str(QuantSpec("int8", dynamic=True)) == "int8 dynamic"


def test_specs_survive_yaml() -> None:
    config = QuantConfig(
        "dynamic", weights=QuantSpec("int4", symmetric=True, qmin=-7), rules=(Rule(op="linear"),)
    )
    assert QuantConfig.from_yaml(config.to_yaml()) == config


def test_weight_forms_say_why_not() -> None:
    forms = WeightForms(dynamic=("int8",), reasons=(("dynamic int4", "too slow"),))
    assert forms.problem(precision("dynamic")) is None
    assert forms.problem(precision("dynamic4")) == "too slow"
    assert forms.problem(precision("float16")) == "there is no stored form with float16 weights"
    assert forms.problem(precision("float32")) is None
