"""Translation validation: right passes pass, in float and in integers; wrong ones are named."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import fxquant as fq
from fxquant.backends.base import IoDtype, IoLayout
from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.legalize.registry import RULES
from fxquant.errors import PassError
from fxquant.ir.aten import aten
from fxquant.passes.base import close
from fxquant.passes.instruments import Validate, instruments
from fxquant.passes.instruments.deviation import Deviation, deviation
from fxquant.passes.instruments.probe import given_inputs
from fxquant.passes.pipeline import Pipeline
from fxquant.tracing import trace
from tests.passes.planted import WrongSigmoid, net, pictures


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("io_layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("io_dtype", ["float32", "int8"])
def test_every_pass_of_a_compile_is_right(
    quantize: str | None, io_layout: IoLayout, io_dtype: IoDtype
) -> None:
    if quantize is None and io_dtype == "int8":
        pytest.skip("a float file has no integer borders")
    watching = Validate(pictures(1)[0])
    fq.compile(
        net(),
        pictures(1)[0],
        quantize=quantize,
        calibration=pictures() if quantize else None,
        io_layout=io_layout,
        io_dtype=io_dtype,
        instruments=[watching],
    )
    names = [name for name, _ in watching.rows]
    assert {"functionalize", "fuse-conv-bn", "legalize-tflite", "assign-layout"} <= set(names)
    assert ("freeze" in names) == (quantize == "int8")


def test_a_wrong_pass_is_named_with_the_first_bad_node_and_the_line() -> None:
    pipeline = Pipeline.default("float").append(WrongSigmoid())
    graph_module = trace(net(), pictures(1)[0])
    with pytest.raises(PassError) as caught, instruments("validate"):
        pipeline(graph_module)
    text = str(caught.value)
    assert "the pass wrong-sigmoid promises exact and gives relative error" in text
    assert "node   %sigmoid = tanh(" in text
    assert "from   planted.py" in text
    assert "x = torch.sigmoid(self.second(x))" in text


def wrong_sigmoid(r, x):  # type: ignore[no-untyped-def]
    """LOGISTIC, of twice the value in float, on a wrong grid in int8."""
    if r.out is None:
        return r.emit(tfl.tanh, x)
    return r.emit(tfl.tanh, x, out=r.out)


@pytest.fixture
def wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[aten.sigmoid.default]
    new = dataclasses.replace(rule, function=wrong_sigmoid)
    monkeypatch.setitem(RULES, aten.sigmoid.default, new)


@pytest.mark.usefixtures("wrong_rule")
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_wrong_lowering_rule_is_named(quantize: str | None) -> None:
    data = pictures() if quantize else None
    with pytest.raises(PassError) as caught:
        fq.compile(
            net(),
            pictures(1)[0],
            quantize=quantize,
            calibration=data,
            progress=False,
            instruments=["validate"],
        )
    text = str(caught.value)
    assert "the pass legalize-tflite promises close(0.001)" in text
    assert "%sigmoid" in text and "= tanh(" in text
    assert "x = torch.sigmoid(self.second(x))" in text


@pytest.mark.usefixtures("wrong_rule")
def test_bisect_names_the_wrong_lowering_rule() -> None:
    model, (x,) = net(), pictures(1)[0]
    found = fq.bisect(model, (x,), lambda graph: near(graph(x), model(x)))
    assert found.item == "legalize-tflite"
    assert found.node is not None and "= tanh(" in found.node
    found = fq.bisect(model, (x,), lambda graph: near(graph(x), model(x)), calibration=pictures())
    assert found.item == "legalize-tflite"
    assert found.node is not None and "= tanh(" in found.node


def near(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() < 0.05)


def test_bisect_names_the_wrong_pass() -> None:
    model, (x,) = net(), pictures(1)[0]
    pipeline = Pipeline.default("float").insert_after("fuse-conv-bn", WrongSigmoid())
    found = fq.bisect(model, (x,), lambda graph: near(graph(x), model(x)), pipeline=pipeline)
    names = [item.name for item in pipeline.flat()]
    assert found.item == "wrong-sigmoid"
    assert found.number == names.index("wrong-sigmoid") + 1
    assert found.node is not None and found.node.startswith("%sigmoid = tanh(")
    assert found.source is not None and "torch.sigmoid" in found.source
    assert str(found).startswith(f"after pass {found.number}, wrong-sigmoid, the predicate fails")


def test_bisect_of_a_predicate_that_always_holds_or_never() -> None:
    x = pictures(1)[0]
    assert str(fq.bisect(net(), x, lambda _: True)) == "the predicate holds after every pass"
    with pytest.raises(fq.FxquantError, match="fails on the graph before any pass"):
        fq.bisect(net(), x, lambda _: False)
    with pytest.raises(fq.FxquantError, match="before any pass: ZeroDivisionError"):
        fq.bisect(net(), x, lambda _: 1 / 0)


def test_a_deviation_is_relative_to_the_largest_value() -> None:
    gap = deviation(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 3.0]))
    assert gap == Deviation(0.25)
    assert gap.within(close(0.25))
    assert not gap.within(close(0.2))
    assert "float32[2] against int64[2]" in str(deviation(torch.zeros(2), torch.zeros(2).long()))
    assert deviation([torch.zeros(1)], [torch.zeros(1), 1]).what == "1 values against 2"


def test_a_probe_is_given_as_the_model_is_called() -> None:
    (x,) = pictures(1)[0]
    graph_module = trace(net(), (x,))
    for given in (x, (x,), [x], {"x": x}):
        assert given_inputs(graph_module, given)[0] is x
    with pytest.raises(fq.FxquantError, match="the probe has 2 values, the graph takes 1"):
        given_inputs(graph_module, (x, x))
