"""The errors that fxquant raises, all in one shape: echo, locate, state, advise.

    UnsupportedOp: tflite has no int8 kernel for aten.erf
      node   %erf = erf(%div) : f32[1,128,768]
      from   model.py:41  x * 0.5 * (1.0 + torch.erf(x / 1.414))
      fix    keep the node in float: keep_float=["erf"]

One error carries every problem of its kind, so that a user mends them in one go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, at which node, from which line, and what to do."""

    what: str
    node: str | None = None
    source: str | None = None
    fix: str | None = None

    def lines(self) -> list[str]:
        """The problem as text: what is wrong, then one indented line for each known fact.

        >>> Problem("no kernel for aten.erf", source="model.py:41").lines()
        ['no kernel for aten.erf', '  from   model.py:41']
        """
        facts = (("node", self.node), ("from", self.source), ("fix", self.fix))
        return [self.what, *(f"  {label:<6} {text}" for label, text in facts if text)]


class FxquantError(Exception):
    """Base of every error raised on purpose by fxquant.

    Args:
        what: the sentence that says what is wrong.
        node: the graph node as text, where one is to blame.
        source: the user's file, line and code.
        fix: what the user can do.
        problems: further problems of the same kind, each listed below the sentence.
    """

    def __init__(
        self,
        what: str,
        *,
        node: str | None = None,
        source: str | None = None,
        fix: str | None = None,
        problems: Iterable[Problem] = (),
    ) -> None:
        self.problem = Problem(what, node, source, fix)
        self.problems = tuple(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = self.problem.lines()
        for problem in self.problems:
            lines.extend("  " + line for line in problem.lines())
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.problems)


def _rebuild(kind: type[FxquantError], top: Problem, rest: tuple[Problem, ...]) -> FxquantError:
    return kind(top.what, node=top.node, source=top.source, fix=top.fix, problems=rest)


class TraceError(FxquantError):
    """The model cannot be followed, e.g. Python control flow on the value of a tensor."""


class InputError(FxquantError, ValueError):
    """An argument of a call, an input tensor or a data set is not what is needed."""


class UnsupportedOp(FxquantError):
    """Operators that a stage or a backend does not know; all of them are listed."""


class InvalidGraph(FxquantError):
    """A graph breaks a rule of its dialect; found by the validity table or a backend."""


class PassError(FxquantError):
    """A pass failed, or broke its contract."""


class PipelineError(FxquantError, ValueError):
    """A pass list that cannot be built: unknown name, wrong option, missing requirement."""


class RegistrationError(FxquantError, ValueError):
    """A second thing is registered under a name that is taken."""


class ConfigError(FxquantError, ValueError):
    """A quantization configuration that says something impossible."""


class CalibrationError(FxquantError):
    """Calibration data are missing or bad, or an observer saw nothing."""


class OutputError(FxquantError, OSError):
    """The result cannot be written; what stood at the path before is untouched."""


class FormatError(FxquantError, ValueError):
    """A file is not what its reader expects."""


class VerifyError(FxquantError):
    """The written file does not compute what the last graph computes."""


class MissingDependency(FxquantError, ImportError):
    """An optional package is needed for this and is not installed."""
