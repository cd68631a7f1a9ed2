"""Choose a precision for every layer, so that a budget is kept.

    config, report = fq.auto_mixed_precision(model, (x,), data, budget=Budget(sqnr=30))
    print(report.render())
    Path("mixed.yaml").write_text(config.to_yaml())

1. The model is prepared and calibrated as the configuration asks, e.g. all in int8.
2. One pass over the data measures the noise that each layer adds alone in each precision tried.
3. Every layer begins in the cheapest; better ones are ordered by how much noise they take away for
   their cost (`steps`).
4. For an accuracy, the fewest first steps that reach it are found by simulating prefixes of that
   order, and those of them that the others make needless are dropped; for a limit of size or
   time, all steps that fit are taken.
5. The choice is prepared and calibrated for real and measured, on other data where there are any;
   where it falls short of the accuracy, more steps are taken (`search`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from fxquant.api import traced
from fxquant.backends.base import Backend
from fxquant.errors import ConfigError, Problem
from fxquant.ir.state import state_of
from fxquant.mixed.budget import Budget, BudgetError
from fxquant.mixed.candidate import Subject
from fxquant.mixed.mixed_report import MixedReport
from fxquant.mixed.search import Search
from fxquant.mixed.sensitivity import Transformed, check_readable_again
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig
from fxquant.quant.spec import Precision, precision


class MixedPrecision(NamedTuple):
    """The choice, and how it came about."""

    config: QuantConfig
    report: MixedReport


def auto_mixed_precision(
    model: nn.Module,
    example_inputs: Any,
    data: Iterable[Any],
    *,
    budget: Budget,
    config: QuantConfig | None = None,
    backend: str | Backend = "tflite",
    precisions: Sequence[str] = ("float32",),
    held_out: Iterable[Any] | None = None,
    probes: int = 0,
    transform: Callable[[Any], Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> MixedPrecision:
    """The configuration that keeps a budget, and a report.

    Args:
        model: any module, or a traced graph; it is not changed.
        example_inputs: a tuple of inputs, as in `torch.export`.
        data: batches of inputs, read several times: a list or a DataLoader.
        budget: what to keep to.
        config: where to begin; all that the target can in int8 if None. Operators that its rules
            name keep what the rules say.
        backend: the target, which has the kernels and the cost table.
        precisions: names of what a layer may compute in instead: better ones, e.g.
            ("int16x8", "float32"), and cheaper ones, e.g. ("int8w4", "int4_weights", "dynamic").
        held_out: other batches, by which the choice is judged; None: by `data`.
        probes: estimate the noise of layers by so many backward passes a batch instead of one
            forward pass for each layer and precision (see `probes`); for large nets, e.g. 8.
        transform: makes the inputs from a batch, e.g. drops labels.
        kwargs: keyword inputs of the model.

    Raises:
        InputError: data that can be read only once.
        CalibrationError: there are no data, or they are not finite.
        ConfigError: there is no precision of that name, or rules that do not fit.
        BudgetError: no choice keeps the budget; says what can be reached, and holds the best one.
    """
    judges = data if held_out is None else held_out
    for each in (data, judges):
        check_readable_again(each)
    tried = [_choosable(name) for name in precisions]
    core = traced(model, example_inputs, kwargs)
    if "functional" not in state_of(core).properties:
        core = Pipeline.default("float")(core)
    batches, judging = (_transformed(each, transform) for each in (data, judges))
    subject = Subject(core, example_inputs, batches, backend, judging)
    search = Search(subject.candidate(config or QuantConfig()), budget, tried, probes)
    result = MixedPrecision(*search.chosen())
    if not result.report.met:
        raise _broken(budget, result, precisions)
    return result


def _choosable(name: str) -> Precision:
    chosen = precision(name)
    if chosen.form == "rounded":
        raise ConfigError(
            f"{name} is not chosen layer by layer",
            fix="choose among float32, int16x8, int8w4, dynamic, int8_weights, int4_weights, …",
        )
    return chosen


def _broken(budget: Budget, best: MixedPrecision, precisions: Sequence[str]) -> BudgetError:
    after = best.report.after
    lines = budget.shortfalls(after.sqnr, after.metric, after.size, after.latency)
    tried = ", ".join(precisions)
    error = BudgetError(
        f"no choice among {tried} keeps the budget; the best one found:",
        fix="ask for less, try more precisions, or free operators that rules name",
        problems=[Problem(line) for line in lines],
    )
    error.best = best
    return error


def _transformed(data: Iterable[Any], transform: Callable[[Any], Any] | None) -> Iterable[Any]:
    return data if transform is None else Transformed(data, transform)
