"""annotate: what each operator computes in, and why."""

from __future__ import annotations

import operator
from dataclasses import replace

import pytest
import torch

from fxquant.errors import ConfigError, PipelineError
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.passes.annotate import Annotate
from fxquant.passes.borders import borders
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.constraints import explain
from tests.conftest import Golden
from tests.passes.core_graphs import TABLE, Builder, pooled_convolution
from tests.passes.quantized_graphs import annotated


def test_annotate_before_and_after(golden: Golden) -> None:
    before = pooled_convolution()
    after = annotated(before)
    golden("annotate", format_graph(before) + "\n" + format_graph(after))


def decisions(
    builder: Builder, *outputs: torch.fx.Node, config: QuantConfig | None = None
) -> dict[str, str]:
    graph_module = annotated(builder.finish(*outputs, config=config))
    return {name: str(annotation) for name, annotation in explain(graph_module).items()}


def image(b: Builder) -> torch.fx.Node:
    return b.input("x", torch.randn(1, 3, 4, 4))


def test_an_operator_without_a_row_stays_float() -> None:
    b = Builder()
    found = decisions(b, b("erf", image(b)))
    assert found == {"erf": "float32: toy has no int8 kernel for aten.erf"}


def test_a_refused_operator_gives_the_table_s_reason() -> None:
    b = Builder()
    assert decisions(b, b("exp", image(b))) == {"exp": "float32: EXP is too steep for 8 bits"}


def test_a_precision_that_the_operator_lacks() -> None:
    b = Builder()
    x = image(b)
    found = decisions(b, b("mul.Tensor", b("add.Tensor", x, x), x), config=QuantConfig("int16x8"))
    assert found == {"add": "int16x8", "mul": "float32: toy has no int16x8 kernel for aten.mul"}


def test_a_rule_is_the_reason() -> None:
    b = Builder()
    config = QuantConfig(rules=(Rule(op="relu"),))
    assert decisions(b, b("relu", image(b)), config=config) == {
        "relu": "float32: rule op=relu -> float32"
    }


def test_weights_must_be_constant() -> None:
    b = Builder()
    x = image(b)
    weight = b.input("w", torch.randn(2, 3, 1, 1))
    assert decisions(b, b("conv2d", x, weight)) == {
        "conv2d": "float32: its weight is not a constant"
    }


def test_movers_between_floats_stay_float() -> None:
    b = Builder()
    moved = b("reshape", b("exp", image(b)), [1, 48])
    assert decisions(b, b("exp", moved))["reshape"] == "float32: moves float values"


def test_movers_follow_the_integers_before_them() -> None:
    b = Builder()
    x = image(b)
    moved = b("reshape", b("add.Tensor", x, x), [1, 48])
    assert decisions(b, b("exp", moved))["reshape"] == "int8 carried(self)"


def test_movers_before_integers_are_drawn_in() -> None:
    b = Builder()
    moved = b("reshape", b("reshape", image(b), [1, 48]), [48])
    found = decisions(b, b("relu", moved))
    assert found["reshape"] == found["reshape_1"] == "int8 carried(self)"


def test_movers_with_a_float_user_are_not_drawn_in() -> None:
    b = Builder()
    moved = b("reshape", image(b), [1, 48])
    found = decisions(b, b("relu", moved), b("exp", moved))
    assert found["reshape"] == "float32: moves float values"


def test_a_concatenation_is_drawn_by_one_quantized_input() -> None:
    b = Builder()
    x = image(b)
    assert decisions(b, b("cat", [b("add.Tensor", x, x), b("exp", x)]))["cat"] == "int8 shared"


def test_parts_follow_the_operator_that_makes_them() -> None:
    b = Builder()
    parts = b("split.Tensor", image(b), 2, 1)
    first, second = (b.call(operator.getitem, parts, i) for i in (0, 1))
    found = decisions(b, b("relu", first), b("exp", second))
    assert found["split"] == found["getitem"] == found["getitem_1"] == "float32: moves float values"


def test_an_activation_is_fused_only_if_nothing_else_reads_the_operator() -> None:
    b = Builder()
    x = image(b)
    alone, shared = b("add.Tensor", x, x), b("mul.Tensor", x, x)
    found = decisions(b, b("relu", alone), b("relu", shared), shared)
    assert found["add"] == "int8 fused into %relu"
    assert found["mul"] == "int8"


@pytest.mark.parametrize(
    ("low", "high", "fused"), [(0.0, 6.0, True), (0.0, None, True), (-1.0, 1.0, False)]
)
def test_only_clamps_that_the_target_has_are_fused(
    low: float, high: float | None, fused: bool
) -> None:
    b = Builder()
    x = image(b)
    clamp = b("clamp", b("add.Tensor", x, x), low, high)
    graph_module = b.finish(clamp)
    rows = {**TABLE.rows, "clamp": TABLE.rows["relu"]}
    state_of(graph_module).constraints = replace(TABLE, rows=rows)
    found = explain(annotated(graph_module))
    assert found["add"].fused_into == ("clamp" if fused else None)


def test_an_activation_stays_with_its_float_operator() -> None:
    b = Builder(w=torch.randn(2, 3, 1, 1))
    conv = b("conv2d", image(b), b.get("w"))
    found = decisions(b, b("relu", conv), config=QuantConfig(keep_float=("conv2d",)))
    assert found["relu"] == "float32: %conv2d before it is float"


def test_a_clamp_between_floats_stays_float() -> None:
    b = Builder()
    found = decisions(b, b("exp", b("relu", b("exp", image(b)))))
    assert found["relu"] == "float32: %exp before it is float"


def test_a_clamp_ends_the_integers_before_it() -> None:
    b = Builder()
    x = image(b)
    assert decisions(b, b("exp", b("relu", b("add.Tensor", x, x))))["relu"] == "int8"


def test_the_border_stands_where_the_value_is_smallest() -> None:
    b = Builder()
    x = image(b)
    pool = b("max_pool2d", b("add.Tensor", x, x), [2, 2])
    found = decisions(b, b("exp", b("cat", [pool, pool])))
    assert found["max_pool2d"] == "int8 carried(self)"
    assert found["cat"] == "float32: moves float values"


def test_free_operators_stay_float_between_floats() -> None:
    b = Builder()
    x = image(b)
    between = b("exp", b("mul.Tensor", b("exp", x), b("exp", x)))
    graph_module = b.finish(between)
    state_of(graph_module).constraints = replace(TABLE, free=frozenset({"mul"}))
    graph_module = annotated(graph_module)
    assert explain(graph_module)["mul"].reason.startswith("between float operators")
    assert borders(graph_module) == []
    assert [row.node for row in state_of(graph_module).stayed_float] == [
        "exp",
        "exp_1",
        "mul",
        "exp_2",
    ]


def test_what_a_rule_asks_is_not_free() -> None:
    b = Builder()
    x = image(b)
    config = QuantConfig(rules=(Rule("int8", op="mul"),))
    graph_module = b.finish(b("exp", b("mul.Tensor", b("exp", x), x)), config=config)
    state_of(graph_module).constraints = replace(TABLE, free=frozenset({"mul"}))
    graph_module = annotated(graph_module)
    assert str(explain(graph_module)["mul"]) == "int8"
    assert [(b.value.name, b.source, b.target, b.size) for b in borders(graph_module)] == [
        ("exp", "float32", "int8", 48 * 5),
        ("mul", "int8", "float32", 48 * 5),
    ]


def test_movers_between_asked_integers_follow_where_float_is_the_default() -> None:
    b = Builder()
    x = image(b)
    moved = b("relu", b("max_pool2d", b("add.Tensor", x, x), [1, 1]))
    config = QuantConfig("float32", rules=(Rule("int8", op="add"),))
    found = decisions(b, b("add.Tensor", moved, moved), config=config)
    assert found["max_pool2d"] == "int8 carried(self)"
    assert found["relu"] == "int8"


def test_movers_take_the_precision_that_saves_most() -> None:
    b = Builder()
    x = image(b)
    config = QuantConfig(rules=(Rule("int16x8", op="add"),))
    wide = b("cat", [b("add.Tensor", x, x), b("mul.Tensor", x, x)])
    graph_module = b.finish(b("add.Tensor", wide, wide), config=config)
    rows = {**TABLE.rows, "cat": replace(TABLE.rows["cat"], dtypes=("int8", "int16"))}  # type: ignore[type-var]
    state_of(graph_module).constraints = replace(TABLE, rows=rows)
    assert str(explain(annotated(graph_module))["cat"]) == "int16x8 shared"


def test_a_rule_that_is_met_nowhere_is_an_error() -> None:
    b = Builder()
    x = image(b)
    rules = (Rule("int16x8", op="mul"), Rule("int8", node="exp*"), Rule("int16x8", op="add"))
    with pytest.raises(ConfigError) as error:
        decisions(
            b, b("exp", b("mul.Tensor", b("add.Tensor", x, x), x)), config=QuantConfig(rules=rules)
        )
    text = str(error.value)
    places = [f"({rule.place})" for rule in rules]
    assert all("(test_annotate.py:" in place for place in places)
    assert f"rule op=mul -> int16x8 {places[0]}: toy has no int16x8 kernel for aten.mul" in text
    assert "%mul = mul(%add, %x) : f32[1,3,4,4]" in text
    assert f"rule node=exp* -> int8 {places[1]}: EXP is too steep for 8 bits" in text
    assert "op=add" not in text


def test_what_model_and_target_refuse_is_told_at_once() -> None:
    b = Builder()
    x = image(b)
    rules = (
        Rule("int16x8", op="mul"),
        Rule("int8", op="gelu"),
        Rule("int8", op="add"),
        Rule(op="add"),
    )
    with pytest.raises(ConfigError) as error:
        decisions(b, b("mul.Tensor", b("add.Tensor", x, x), x), config=QuantConfig(rules=rules))
    text = str(error.value)
    first = "the rules do not fit the model, and some rules ask for precisions that the target does"
    assert text.startswith(first)
    for line in (
        f"rule op=gelu -> int8 ({rules[1].place}): matches no node",
        f"rules op=add -> int8 ({rules[2].place}) and op=add -> float32 ({rules[3].place}): eq",
        f"rule op=mul -> int16x8 ({rules[0].place}): toy has no int16x8 kernel for aten.mul",
    ):
        assert line in text


def test_a_rule_that_is_met_in_part_reports_the_rest() -> None:
    b = Builder()
    x = image(b)
    config = QuantConfig(rules=(Rule("int16x8", node="*"),))
    found = decisions(b, b("mul.Tensor", b("add.Tensor", x, x), x), config=config)
    assert found == {"add": "int16x8", "mul": "float32: toy has no int16x8 kernel for aten.mul"}


def test_integer_values_are_left_alone() -> None:
    b = Builder()
    x = b.input("i", torch.arange(6))
    assert decisions(b, b("reshape", x, [2, 3])) == {}


def test_what_stayed_float_is_reported() -> None:
    b = Builder()
    x = image(b)
    graph_module = annotated(b.finish(b("exp", b("add.Tensor", x, x))))
    (row,) = state_of(graph_module).stayed_float
    assert (row.node, row.operator, row.reason) == ("exp", "exp", "EXP is too steep for 8 bits")


def test_the_option_changes_the_default_precision() -> None:
    b = Builder()
    graph_module = Pipeline((Annotate(activations="float32"),))(b.finish(b("relu", image(b))))
    assert str(explain(graph_module)["relu"]) == "float32: rule default"


def test_a_graph_without_target_is_refused() -> None:
    b = Builder()
    graph_module = b.finish(b("relu", image(b)))
    state_of(graph_module).constraints = None
    with pytest.raises(ConfigError, match="no target"):
        annotated(graph_module)


def test_the_contract() -> None:
    with pytest.raises(PipelineError):
        Pipeline((Annotate(),)).check({"functional"})
    assert "annotated" in Pipeline((Annotate(),)).check({"functional", "shapes"})
