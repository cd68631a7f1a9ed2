"""The user's choices as data: what to quantize to, and where to do otherwise.

    config = QuantConfig(
        rules=(Rule(module="features.0.*", precision="float32"), Rule(op="softmax",
        precision="int16x8")), keep_float=("classifier", "sigmoid"),
    )
    QuantConfig.from_yaml(config.to_yaml()) == config

The most specific rule wins: a node's name, then a predicate, then a module path (the more literal
characters the better), then an operator, then the default. Two rules of one rank that disagree are
an error, and so is a rule that matches nothing.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch.fx import GraphModule, Node

from fxquant.errors import ConfigError, Problem
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_of, source_text
from fxquant.ir.state import state_of
from fxquant.quant.close_names import close_names
from fxquant.quant.config_listing import HEAD, listing
from fxquant.quant.config_reading import Reader, written_fields
from fxquant.quant.constraints import operator_name
from fxquant.quant.rule_places import calling_line, located, yaml_lines
from fxquant.quant.spec import Precision, QuantSpec, precision

Predicate = Callable[[Node], bool]

PART_OF = "part_of"
"""Where a node notes which operator it is a part of since a pass took that apart, e.g. `lstm`."""


@dataclass(frozen=True)
class Rule:
    """A precision for the nodes that meet every condition given.

    Attributes:
        precision: name of the precision (`spec.PRECISIONS`).
        module: glob over the user's module path, e.g. `features.*`.
        op: operator name, e.g. `softmax`, or the class of a module.
        node: glob over node names.
        callable: a predicate on the node, or the place of one as `package.module:function`.
        place: the file and line that the rule stands in, for error messages.
    """

    precision: str = "float32"
    module: str | None = None
    op: str | None = None
    node: str | None = None
    callable: Predicate | str | None = None
    place: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.place:  # of the caller of the generated __init__
            object.__setattr__(self, "place", calling_line(2))
        precision(self.precision)
        if not (self.module or self.op or self.node or self.callable):
            raise ConfigError(
                f"the rule {self} has no condition", fix="give it module=, op=, node= or callable="
            )

    def matches(self, node: Node, root: GraphModule) -> bool:
        """Whether every condition holds of a node."""
        tests: tuple[tuple[object, Callable[[], bool]], ...] = (
            (self.op, lambda: self.op in (operator_name(node, root), node.meta.get(PART_OF))),
            (self.node, lambda: fnmatch.fnmatchcase(node.name, self.node or "")),
            (self.module, lambda: _in_module(node, self.module or "")),
            (self.callable, lambda: self._predicate()(node)),
        )
        return all(test() for condition, test in tests if condition is not None)

    def _predicate(self) -> Predicate:
        if not isinstance(self.callable, str):
            assert self.callable is not None
            return self.callable
        place, _, name = self.callable.partition(":")
        try:
            found: Predicate = getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError, ValueError) as error:
            fix = "write it as package.module:function"
            raise ConfigError(f"there is no predicate {self.callable!r}", fix=fix) from error
        return found

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """How specific the rule is; the largest wins."""
        called = int(self.callable is not None)
        return (_literal(self.node), called, _literal(self.module), _literal(self.op))

    def __str__(self) -> str:
        given = [(f.name, getattr(self, f.name)) for f in written_fields(Rule)]
        shown = [f"{name}={_shown(value)}" for name, value in given[1:] if value is not None]
        return f"{', '.join(shown)} -> {self.precision}"

    @property
    def title(self) -> str:
        """The rule and where it stands."""
        return located(str(self), self.place)


def _literal(pattern: str | None) -> int:
    """The literal characters of a glob, one more where it has no wildcard at all."""
    if pattern is None:
        return 0
    literal = len(pattern) - sum(pattern.count(char) for char in "*?")
    return 1 + 2 * literal + (literal == len(pattern))


def _shown(value: object) -> str:
    return getattr(value, "__qualname__", None) or str(value)


def _in_module(node: Node, pattern: str) -> bool:
    source = source_of(node)
    path = source.path if source is not None else ""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern + ".*")


class Choice(NamedTuple):
    """A node's precision and the rule that chose it.

    Attributes:
        precision: what the node is asked to compute in.
        rule: the rule as text, `default` where there is none.
        asked: the rule itself.
    """

    precision: Precision
    rule: str
    asked: Rule | None = None

    @property
    def names_node(self) -> bool:
        """Whether the user chose for this very node."""
        return self.asked is not None and self.asked.node is not None


@dataclass(frozen=True)
class QuantConfig:
    """What to quantize to, and where to do otherwise.

    Attributes:
        precision: of every node that no rule names.
        activations: spec of activations where it differs from the precision's own.
        weights: spec of weights where it differs from the precision's own.
        per_channel: give weights one scale per output channel, where the target can.
        equalize: let channels of one value have like ranges (see `quant.equalization`).
        absorb_bias: move what a ReLU never falls below into the next bias (see
            `quant.bias_absorption`); the float model may change on data unlike the first samples.
        correct_bias: take the mean error of quantization out of biases (see `bias_correction`).
        refine_rounding: round weights by what they do to a layer's output (see `weight_rounding`);
            None: those of four bits only.
        integer_only: compute in integers also what is faster and closer in float, e.g. layer_norm;
            what `require=` implies.
        outputs: observer of values that the graph returns; the extremes of logits matter.
        learned: `lsq` or `lsq+`: steps that `prepare_qat` learns (see `quant.qat.learned`).
        recurrent: `fused`: layers over sequences are one operator where the target has it in
            integers; `unrolled`: step by step.
        rules: exceptions, the most specific wins.
        keep_float: operators, node names or module paths (globs) that stay in float.
    """

    precision: str = "int8"
    activations: QuantSpec | None = None
    weights: QuantSpec | None = None
    per_channel: bool = True
    equalize: bool = True
    absorb_bias: bool = False
    correct_bias: bool = True
    refine_rounding: bool | None = None
    integer_only: bool = False
    outputs: str | None = "minmax"
    learned: str | None = None
    recurrent: str = "fused"
    rules: tuple[Rule, ...] = ()
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        precision(self.precision)
        if self.learned not in (None, "lsq", "lsq+"):
            what = f"steps cannot be learned by {self.learned!r}"
            raise ConfigError(what, fix='use learned="lsq", "lsq+" or None')
        if self.recurrent not in ("fused", "unrolled"):
            what = f"recurrent layers cannot be written {self.recurrent!r}"
            raise ConfigError(what, fix='use recurrent="fused" or "unrolled"')

    def resolved(self, name: str) -> Precision:
        """The precision of that name with the specs of this configuration."""
        chosen = precision(name)
        if name != self.precision or chosen.form == "float":
            usual = self._usual_weights(chosen)
            return chosen if usual == chosen.weights else replace(chosen, weights=usual)
        own = self.activations if chosen.quantized else None
        return replace(
            chosen,
            activations=own or chosen.activations,
            weights=self.weights or self._usual_weights(chosen),
        )

    def _usual_weights(self, chosen: Precision) -> QuantSpec | None:
        """A precision's own spec of weights; of four bits, whole where only biases are corrected.

        What is cut off the largest weights is an error that a bias cannot make up for.
        """
        corrected = self.correct_bias and self.refine_rounding is False
        if chosen.weights is None or chosen.weights.dtype != "int4" or not corrected:
            return chosen.weights
        return replace(chosen.weights, observer="minmax")

    @property
    def uniform(self) -> str:
        """The precision of the whole graph; empty where rules or specs make differences."""
        alike = not (self.rules or self.keep_float or self.weights or self.activations)
        return self.precision if alike else ""

    @property
    def needs_data(self) -> bool:
        """Whether some values can only be quantized after calibration."""
        named = (self.precision, *(rule.precision for rule in self.rules))
        return any(precision(name).quantized for name in named)

    def wants_integers(self, choice: Choice) -> bool:
        """Whether a node shall compute in integers even if float is faster and closer there."""
        return choice.precision.quantized and (self.integer_only or choice.asked is not None)

    def choices(self, graph_module: GraphModule) -> dict[Node, Choice]:
        """The precision that the rules give to each operator of a graph.

        Raises:
            ConfigError: rules that match nothing, or that disagree on a node; all of them.
        """
        found, problems = self.judged(graph_module)
        if problems:
            raise ConfigError("the rules do not fit the model", problems=problems)
        return found

    def judged(self, graph_module: GraphModule) -> tuple[dict[Node, Choice], list[Problem]]:
        """The choices, and what is wrong with the rules: those that match nothing or disagree."""
        nodes = [n for n in graph_module.graph.nodes if n.op in {"call_function", "call_module"}]
        rules = [*self.rules, *_float_rules(self.keep_float, nodes, graph_module)]
        matches = {node: [r for r in rules if r.matches(node, graph_module)] for node in nodes}
        problems = self._problems(rules, matches, graph_module)
        return {node: self._choice(found) for node, found in matches.items()}, problems

    def choice(self, node: Node, root: GraphModule) -> Choice:
        """The precision that the rules give to one node; rules are not checked."""
        rules = [*self.rules, *_float_rules(self.keep_float, [node], root)]
        return self._choice([rule for rule in rules if rule.matches(node, root)])

    def _choice(self, matching: list[Rule]) -> Choice:
        if not matching:
            return Choice(self.resolved(self.precision), "default")
        best = max(matching, key=lambda rule: rule.rank)
        return Choice(self.resolved(best.precision), str(best), best)

    def _problems(
        self, rules: Iterable[Rule], matches: Mapping[Node, list[Rule]], root: GraphModule
    ) -> list[Problem]:
        used = {id(rule) for found in matches.values() for rule in found}
        idle = [rule for rule in rules if id(rule) not in used]
        problems = [
            Problem(f"rule {r.title}: matches no node", fix=close_names(r, matches, root))
            for r in idle
        ]
        for node, found in matches.items():
            top = [r for r in found if r.rank == max(r.rank for r in found)]
            if len({r.precision for r in top}) > 1:
                titles = " and ".join(rule.title for rule in top)
                what = f"rules {titles}: equally specific, but disagree"
                problems.append(Problem(what, format_node(node), source_text(node)))
        return problems

    def explain(self, graph_module: GraphModule) -> dict[str, str]:
        """Which rule chose each node's precision, by node name."""
        chosen = self.choices(graph_module)
        return {n.name: f"{choice.precision} by {choice.rule}" for n, choice in chosen.items()}

    def to_yaml(self, graph_module: GraphModule | None = None) -> str:
        """The configuration as YAML; what equals the default is left out.

        With an annotated graph, every node is listed with its precision, shape and reason instead
        of the rules that led there (see `config_listing`).

        Raises:
            ConfigError: a rule holds a Python function; or nothing was decided for the graph yet.
        """
        if graph_module is None:
            return yaml.safe_dump(_plain(self), sort_keys=False)
        plain = {"precision": self.precision, **_plain(replace(self, rules=(), keep_float=()))}
        head = HEAD.format(target=state_of(graph_module).target)
        return head + yaml.safe_dump(plain, sort_keys=False) + listing(graph_module)

    @staticmethod
    def from_yaml(source: str | Path) -> QuantConfig:
        """The configuration in a YAML text or file.

        Raises:
            ConfigError: no YAML, or keys and values that mean nothing.
        """
        text = source.read_text() if isinstance(source, Path) else source
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the configuration is not YAML: {error}") from error
        nodes = data.pop("nodes", None) if isinstance(data, dict) else None
        lines = yaml_lines(text, source.name if isinstance(source, Path) else "YAML")
        reader = Reader(lines, Rule, NESTED)
        config = reader.read(QuantConfig, data or {}, "the configuration", ())
        listed = [] if nodes is None else reader.listed(nodes)
        reader.check()
        assert isinstance(config, QuantConfig)
        return replace(config, rules=(*config.rules, *listed))


def _float_rules(names: Iterable[str], nodes: list[Node], root: GraphModule) -> list[Rule]:
    """Each name of `keep_float` as the rule that it means: an operator, a node or a module."""
    rules: list[Rule] = []
    for name in names:
        place = f"keep_float={name!r}"
        meant = (
            Rule(op=name, place=place),
            Rule(node=name, place=place),
            Rule(module=name, place=place),
        )
        found = [r for r in meant if any(r.matches(node, root) for node in nodes)]
        rules.extend(found or meant[-1:])
    return rules


NESTED: dict[str, type] = {"activations": QuantSpec, "weights": QuantSpec}


def _plain(item: Any) -> dict[str, Any]:
    """A dataclass as the plain data that YAML holds."""
    pairs = [(f, getattr(item, f.name)) for f in written_fields(type(item))]
    given = {f.name: value for f, value in pairs if value != f.default}
    for name, value in given.items():
        if name == "rules":
            given[name] = [_plain_rule(rule) for rule in value]
        elif name in NESTED:
            given[name] = _plain(value)
        elif isinstance(value, tuple):
            given[name] = list(value)
    return given


def _plain_rule(rule: Rule) -> dict[str, Any]:
    if rule.callable is not None and not isinstance(rule.callable, str):
        raise ConfigError(
            f"the rule {rule} holds a Python function, which YAML cannot",
            fix="name it as package.module:function",
        )
    return {**_plain(rule), "precision": rule.precision}
