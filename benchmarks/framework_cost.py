"""What the framework itself costs: the runner's share of a compile, instruments off.

    python -m benchmarks.framework_cost [--model mobilenet_v2] [--rounds 3]

Seconds of running a pipeline less the seconds inside its passes: the copy of the graph, the check
of requirements, properties, and making the code of each changed graph. The goal is below 1 % of an
int8 compile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fxquant as fq
from fxquant.passes import pipeline as runner
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.pipeline import Pipeline
from tests.support.zoo import NAMES, random_images, zoo_model

LIMIT = 0.01


@dataclass
class Cost:
    """Seconds of one compile.

    Attributes:
        compile: all of it.
        pipelines: inside `Pipeline.run`.
        passes: inside the passes' own `run`.
    """

    compile: float = 0.0
    pipelines: float = 0.0
    passes: float = 0.0

    @property
    def share(self) -> float:
        """The runner's part of the compile."""
        return (self.pipelines - self.passes) / self.compile


class _Timed:
    """A pass whose `run` counts its seconds; everything else is the pass's."""

    def __init__(self, item: Pass, cost: Cost) -> None:
        self._item, self._cost = item, cost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._item, name)

    def run(self, graph_module: Any) -> PassResult:
        """The pass, timed."""
        start = time.perf_counter()
        result = self._item.run(graph_module)
        self._cost.passes += time.perf_counter() - start
        return result


@contextmanager
def measured(cost: Cost) -> Iterator[None]:
    """Count the seconds of pipelines and passes inside."""
    run, run_pass = Pipeline.run, runner.run_pass

    def timed_run(self: Pipeline, graph_module: Any) -> PassResult:
        start = time.perf_counter()
        result = run(self, graph_module)
        cost.pipelines += time.perf_counter() - start
        return result

    def timed_pass(item: Any, graph_module: Any, instruments: Any = ()) -> PassResult:
        timed: Any = _Timed(item, cost)
        return run_pass(timed, graph_module, instruments)

    Pipeline.run, runner.run_pass = timed_run, timed_pass  # type: ignore[method-assign]
    try:
        yield
    finally:
        Pipeline.run, runner.run_pass = run, run_pass  # type: ignore[method-assign]


def measure(model: str) -> Cost:
    """The cost of one int8 compile of a net of the zoo."""
    net, data = zoo_model(model), [(image,) for image in random_images(model, 8, seed=1)]
    cost = Cost()
    with measured(cost):
        start = time.perf_counter()
        fq.compile(net, data[0], quantize="int8", calibration=data, progress=False)
        cost.compile = time.perf_counter() - start
    return cost


def main(arguments: Sequence[str] | None = None) -> Cost:
    """Print the costs; return that of the round with the smallest share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2", choices=NAMES)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    best = min((measure(options.model) for _ in range(options.rounds)), key=lambda cost: cost.share)
    milliseconds = 1e3 * (best.pipelines - best.passes)
    print(f"{options.model}: compile {best.compile:.2f} s, passes {best.passes:.2f} s")
    print(f"the runner: {milliseconds:.1f} ms, {best.share:.2%} (goal: below {LIMIT:.0%})")
    return best


if __name__ == "__main__":
    main()
