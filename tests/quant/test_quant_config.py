"""The user's choices: rules by specificity, YAML both ways, clear errors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.fx import GraphModule, Node

from fxquant.errors import ConfigError
from fxquant.ir.source import SourceLocation
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.spec import INT8_WEIGHTS, QuantSpec
from tests.passes.core_graphs import Builder


def two_layers() -> GraphModule:
    """conv (in features.0), relu (features.1), conv_1 (features.0.inner), exp (head)."""
    b = Builder(w=torch.randn(3, 3, 1, 1))
    x = b.input("x", torch.randn(1, 3, 4, 4))
    conv = b("conv2d", x, b.get("w"), name="conv")
    relu = b("relu", conv)
    inner = b("conv2d", relu, b.get("w"), name="conv_1")
    exp = b("exp", inner)
    places = {conv: "features.0", relu: "features.1", inner: "features.0.inner", exp: "head"}
    for node, module in places.items():
        node.meta["source"] = SourceLocation("model.py", 1, module)
    return b.finish(exp)


def chosen(config: QuantConfig) -> dict[str, str]:
    return {n.name: c.precision.name for n, c in config.choices(two_layers()).items()}


def test_the_default_is_int8_everywhere() -> None:
    assert set(chosen(QuantConfig()).values()) == {"int8"}


@pytest.mark.parametrize(
    ("rule", "nodes"),
    [
        (Rule(op="conv2d"), "conv conv_1"),
        (Rule(node="conv_*"), "conv_1"),
        (Rule(module="features.0"), "conv conv_1"),
        (Rule(module="features.?"), "conv relu conv_1"),
        (Rule(module="features.*", op="relu"), "relu"),
        (Rule(callable=lambda node: node.name == "exp"), "exp"),
        (Rule(callable="tests.quant.test_quant_config:is_relu"), "relu"),
    ],
    ids=str,
)
def test_a_rule_names_nodes(rule: Rule, nodes: str) -> None:
    found = chosen(QuantConfig(rules=(rule,)))
    assert {name for name, kind in found.items() if kind == "float32"} == set(nodes.split())


def is_relu(node: Node) -> bool:
    return node.name == "relu"


def test_the_most_specific_rule_wins_in_any_order() -> None:
    rules = (
        Rule("int8", node="conv"),
        Rule("int16x8", module="features.0"),
        Rule("float32", module="features.*"),
        Rule("int8w4", op="conv2d"),
    )
    expected = {"conv": "int8", "relu": "float32", "conv_1": "int16x8", "exp": "int8"}
    assert chosen(QuantConfig(rules=rules)) == expected
    assert chosen(QuantConfig(rules=rules[::-1])) == expected


def test_keep_float_takes_operators_nodes_and_modules() -> None:
    found = chosen(QuantConfig(keep_float=("exp", "conv_1", "features.1")))
    assert found == {"conv": "int8", "relu": "float32", "conv_1": "float32", "exp": "float32"}


def test_rules_that_match_nothing_are_all_listed() -> None:
    config = QuantConfig(rules=(Rule(op="gelu"), Rule(module="feature.0")), keep_float=("nope",))
    with pytest.raises(ConfigError) as error:
        config.choices(two_layers())
    for text in ("op=gelu", "module=feature.0", "module=nope", "matches no node"):
        assert text in str(error.value)


def test_a_rule_that_matches_nothing_names_what_is_spelled_like_it() -> None:
    rules = (Rule(node="conv_2"), Rule(module="feature.0"), Rule(op="rleu"), Rule(op="gelu_x"))
    with pytest.raises(ConfigError) as error:
        QuantConfig(rules=rules).choices(two_layers())
    lines = [re.sub(r"py:\d+", "py:1", line) for line in str(error.value).splitlines()]
    place = "(test_quant_config.py:1)"
    assert f"  rule node=conv_2 -> float32 {place}: matches no node" in lines
    assert "    fix    did you mean node=conv_1 or node=conv?" in lines
    assert (
        "    fix    did you mean module=features.0 or module=features.1 or module=features?"
        in lines
    )
    assert "    fix    did you mean op=relu?" in lines


def test_equally_specific_rules_that_disagree_are_an_error() -> None:
    config = QuantConfig(rules=(Rule("int8", op="relu"), Rule("float32", op="relu")))
    with pytest.raises(ConfigError, match="equally specific, but disagree") as error:
        config.choices(two_layers())
    assert "%relu = relu(%conv)" in str(error.value)


def test_every_rule_is_told_with_its_line() -> None:
    text = """
        keep_float: [nope]
        rules:
          - {op: gelu, precision: int8}
          - op: relu
            precision: int8
          - {op: relu, precision: float32}
    """
    config = QuantConfig.from_yaml(text)
    mine = Rule("int8", op="silu")
    with pytest.raises(ConfigError) as error:
        replace(config, rules=(*config.rules, mine)).choices(two_layers())
    here = mine.place.rpartition(":")[0]
    assert here == "test_quant_config.py"
    for line in (
        "rule op=gelu -> int8 (YAML:4): matches no node",
        f"rule op=silu -> int8 ({mine.place}): matches no node",
        "rule module=nope -> float32 (keep_float='nope'): matches no node",
        "rules op=relu -> int8 (YAML:5) and op=relu -> float32 (YAML:7): equally specific, but",
    ):
        assert line in str(error.value)


def test_all_that_cannot_be_read_is_told_with_its_line() -> None:
    text = """
        per_chanel: true
        rules:
          - {op: conv2d, precision: int7}
          - {precision: int8}
          - {opp: add}
        nodes: {conv: int9}
    """
    with pytest.raises(ConfigError) as error:
        QuantConfig.from_yaml(text)
    for line in (
        "'per_chanel' in the configuration means nothing (YAML:2)",
        "fix    did you mean per_channel?",
        "rule 1 of the configuration: there is no precision 'int7' (YAML:4)",
        "rule 2 of the configuration: the rule  -> int8 has no condition (YAML:5)",
        "'opp' in rule 3 of the configuration means nothing (YAML:6)",
        "node conv: there is no precision 'int9' (YAML:7)",
    ):
        assert line in str(error.value)


def test_explain_says_which_rule_chose() -> None:
    config = QuantConfig(rules=(Rule("float32", op="exp"),))
    found = config.explain(two_layers())
    assert found["exp"] == "float32 by op=exp -> float32"
    assert found["conv"] == "int8 by default"


def test_own_specs_replace_those_of_the_precision() -> None:
    activations = QuantSpec("int8", observer="percentile")
    config = QuantConfig(activations=activations)
    assert config.resolved("int8").activations == activations
    assert config.resolved("int8").weights == INT8_WEIGHTS
    assert config.resolved("float32").activations is None


CONFIGS = [
    QuantConfig(),
    QuantConfig(per_channel=False, outputs=None, keep_float=("softmax", "head.*")),
    QuantConfig(
        activations=QuantSpec("int8", observer="percentile"),
        weights=QuantSpec("int8", qmin=-127, symmetric=True),
        rules=(Rule("int16x8", module="a.*"), Rule(op="add", callable="pkg.mod:function")),
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_yaml_both_ways(config: QuantConfig, tmp_path: Path) -> None:
    assert QuantConfig.from_yaml(config.to_yaml()) == config
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert QuantConfig.from_yaml(path) == config


def test_yaml_by_hand() -> None:
    text = """
        keep_float: softmax
        rules:
          - {op: conv2d, precision: int8w4}
    """
    config = QuantConfig.from_yaml(text)
    assert config == QuantConfig(keep_float=("softmax",), rules=(Rule("int8w4", op="conv2d"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("per_chanel: true", "did you mean per_channel?"),
        ("rules: [{opp: add}]", "'opp' in rule 1 of the configuration"),
        ("activations: {dtype: int8, scale: 3}", "'scale' in activations of the configuration"),
        ("precision: int7", "no precision 'int7'"),
        ("rules: [{precision: int8}]", "has no condition"),
        ("[1, 2]", "must be keys and values, got list"),
        ("a: [", "is not YAML"),
        ("rules: 3", "rule 1 of the configuration must be keys and values"),
    ],
)
def test_bad_yaml_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        QuantConfig.from_yaml(text)
    assert message in str(error.value)


def test_a_function_cannot_be_written_as_yaml() -> None:
    config = QuantConfig(rules=(Rule(callable=is_relu),))
    with pytest.raises(ConfigError, match=r"name it as package.module:function"):
        config.to_yaml()


def test_a_predicate_that_does_not_exist() -> None:
    config = QuantConfig(rules=(Rule(callable="no.such:thing"),))
    with pytest.raises(ConfigError, match="no predicate 'no.such:thing'"):
        config.choices(two_layers())
