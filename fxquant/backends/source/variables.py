"""Names of the values in one `forward`: those that a person would choose.

x = self.conv1(x)          a value that takes the place of its operand keeps the name
out = self.conv1(x)        a chain that ends in the result is `out`
branch5x5 = …              other chains are named after what starts them
"""

from __future__ import annotations

import builtins
import keyword
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Node

from fxquant.ir.aten import packet_name

RESERVED = frozenset(
    {*keyword.kwlist, *dir(builtins), "self", "inputs", "torch", "nn", "F", "fqnn", "aten"}
)


@dataclass(eq=False)
class Step:
    """One statement: what it reads and what it makes.

    Attributes:
        label: what a new value would be called after it.
        reads: the values it reads, in order.
        makes: the values it makes, in order; several where a tuple is taken apart.
    """

    label: str
    reads: Sequence[Node]
    makes: Sequence[Node]


def identifier(text: str, default: str = "value") -> str:
    """A text as a name that hides nothing.

    >>> identifier("0.conv"), identifier("lambda"), identifier("_max_pool")
    ('conv', 'lambda_', 'max_pool')
    """
    name = re.sub(r"\W+", "_", text).strip("_")
    name = re.sub(r"^\d+_?", "", name) or default
    return f"{name}_" if name in RESERVED else name


def label_of(node: Node, base: str = "") -> str:
    """What a value is called after: the module, the method or the function that makes it.

    `base` is the path of the module whose code this is.
    """
    if node.op == "placeholder":
        return node.name
    if node.target is operator.getitem:
        return f"part{node.args[1]}" if isinstance(node.args[1], int) else "part"
    constant = node.all_input_nodes[0] if node.all_input_nodes else node
    if constant.op == "get_attr" and all(each.op == "get_attr" for each in node.all_input_nodes):
        target = str(constant.target).removeprefix(f"{base}." if base else "")
        return "_".join(target.split(".")[-2:])
    if node.op in {"call_module", "get_attr"}:
        return module_label(str(node.target))
    return packet_name(node.target).strip("_") or "value"


def module_label(path: str) -> str:
    """`layer1.0.conv1` is `conv1`, and `features.3` is `feature3`."""
    *_, before, last = ("", *path.split("."))
    return f"{singular(before)}{last}" if last.isdigit() else last


def singular(name: str) -> str:
    """One of many.

    >>> singular("layers"), singular("features"), singular("branches"), singular("layer1")
    ('layer', 'feature', 'branch', 'layer1')
    """
    if name.endswith(("ches", "shes", "sses", "xes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name


def choose_names(
    steps: Sequence[Step], inputs: Mapping[Node, str], outputs: Sequence[Node]
) -> dict[Node, str]:
    """A name for every value of one body.

    Args:
        steps: its statements in order.
        inputs: the names of what is there at the start.
        outputs: what it returns.
    """
    chains = _chains(steps, inputs, outputs)
    names = {chain[0]: name for chain, name in _fixed(chains, inputs, outputs)}
    taken = set(names.values()) | set(inputs.values())
    labels: dict[Node, str] = {}
    for step in steps:
        several = len(step.makes) > 1
        for index, node in enumerate(step.makes):
            labels[node] = f"{step.label}{index}" if several else step.label
    for chain in chains:
        if chain[0] not in names:
            stem = identifier(_stem([labels[node] for node in chain]))
            name = _free(stem, taken)
            taken.add(name)
            names[chain[0]] = name
    return {node: names[chain[0]] for chain in chains for node in chain}


def _chains(
    steps: Sequence[Step], inputs: Mapping[Node, str], outputs: Sequence[Node]
) -> list[list[Node]]:
    """Values that follow one another: each is made where the one before is read last."""
    last = {node: index for index, step in enumerate(steps) for node in step.reads}
    last |= dict.fromkeys(outputs, len(steps))
    chain_of = {node: [node] for node in inputs}
    constant = {node for step in steps if not step.reads for node in step.makes}
    for index, step in enumerate(steps):
        ended = [n for n in step.reads if n in chain_of and last[n] == index and n not in constant]
        for node in step.makes:
            chain = chain_of[ended[0]] if ended and len(step.makes) == 1 else []
            chain.append(node)
            chain_of[node] = chain
    unique = {id(chain): chain for chain in chain_of.values()}
    return list(unique.values())


def _fixed(
    chains: Sequence[list[Node]], inputs: Mapping[Node, str], outputs: Sequence[Node]
) -> list[tuple[list[Node], str]]:
    """Chains that start with an input keep its name; the one that ends in the result is `out`."""
    fixed = [(chain, inputs[chain[0]]) for chain in chains if chain[0] in inputs]
    if len(outputs) == 1 and "out" not in inputs.values():
        fixed += [
            (chain, "out")
            for chain in chains
            if chain[0] not in inputs and chain[-1] is outputs[0] and len(chain) > 1
        ]
    return fixed


def _stem(labels: Sequence[str]) -> str:
    """The name that modules of a chain share, or else that of the first.

    >>> _stem(["branch5x5_1", "branch5x5_2"])
    'branch5x5'
    """
    first = labels[0]
    shared = re.sub(r"_\d+$", "", first)
    if len(labels) > 1 and shared != first and labels[1].startswith(f"{shared}_"):
        return shared
    return first


def _free(stem: str, taken: set[str]) -> str:
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}{'_' if stem[-1:].isdigit() else ''}{number}"
    return name
