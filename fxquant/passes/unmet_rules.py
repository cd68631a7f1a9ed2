"""Rules that ask for what the target cannot do.

A default precision asks for what can be had; what cannot stays float, and the reason is reported.
A rule means what it says: if not one of the operators that it names can be computed as it asks,
that is an error, which lists all of them, and with them the rules that fit the model nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.fx import GraphModule, Node

from fxquant.errors import ConfigError, Problem
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.quant.config import Choice, Rule
from fxquant.quant.constraints import Annotation


def check_rules_are_met(
    root: GraphModule,
    choices: Mapping[Node, Choice],
    asked: Mapping[Node, Annotation],
    misfits: Sequence[Problem] = (),
) -> None:
    """Raise what the target lacks of the precisions that rules ask for.

    Args:
        root: the graph.
        choices: what the rules choose.
        asked: what the target answers.
        misfits: what is wrong with the rules whatever the target is.

    Raises:
        ConfigError: rules that are met nowhere; every operator of theirs with its reason.
    """
    named: dict[Rule, list[Node]] = {}
    for node in asked:
        rule = choices[node].asked
        if rule is not None:
            named.setdefault(rule, []).append(node)
    problems: list[Problem] = []
    for rule, nodes in named.items():
        if all(asked[node].precision != choices[node].precision for node in nodes):
            problems.extend(_problem(root, rule, node, asked[node].reason) for node in nodes)
    lacking = "rules ask for precisions that the target does not have"
    unfit = "the rules do not fit the model"
    if problems:
        raise ConfigError(
            f"{unfit}, and some {lacking}" if misfits else lacking,
            fix="ask for another precision there, or drop the rules",
            problems=[*misfits, *problems],
        )
    if misfits:
        raise ConfigError(unfit, problems=misfits)


def _problem(root: GraphModule, rule: Rule, node: Node, reason: str) -> Problem:
    return Problem(f"rule {rule.title}: {reason}", format_node(node, root), source_text(node))
