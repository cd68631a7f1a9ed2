"""Names of the values in one `forward`: those that a person would choose.

x = self.conv1(x)              a value that takes the place of its operand keeps the name
out = self.conv1(x)            a chain that ends in the result is `out`
branch5x5 = …                  others are named after the one module that they go through,
y = self.mlp(self.norm(x))     or `y` where there are several,
q, k, v = qkv.unbind(0)        or what attention calls them
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


SPLITS = {
    "split": "part",
    "chunk": "part",
    "split_with_sizes": "part",
    "tensor_split": "part",
    "unbind": "item",
}
ATTENTION = frozenset({"scaled_dot_product_attention", "softmax", "_softmax", "bmm", "baddbmm"})
GENERIC = re.compile(r"(drop(out|path|_path)?|relu|gelu|act(ivation)?|(de)?quant|\w+_fq)(_?\d+)?")
"""Names of modules that say nothing of what comes out of them."""
NAMELESS = "y"
LONG = 20  # characters of a name that stands in several lines
MOST_LABELS = 2  # functions that a chain may be named after the first of


@dataclass(eq=False)
class Step:
    """One statement: what it reads and what it makes.

    Attributes:
        label: what a new value would be called after it.
        reads: the values it reads, in order.
        makes: the values it makes, in order; several where a tuple is taken apart.
        after: those of `reads` whose name the result may have, the likeliest first.
        function: what it calls; empty for a module.
        fixed: whether it makes the same in every call, of parameters alone.
    """

    label: str
    reads: Sequence[Node]
    makes: Sequence[Node]
    after: Sequence[Node] = ()
    function: str = ""
    fixed: bool = False


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
    constant = node.all_input_nodes[0] if node.all_input_nodes else node
    if constant.op == "get_attr" and all(each.op == "get_attr" for each in node.all_input_nodes):
        target = str(constant.target).removeprefix(f"{base}." if base else "")
        return "_".join(target.split(".")[-2:])
    if node.target is operator.getitem:
        return f"part{node.args[1]}" if isinstance(node.args[1], int) else "part"
    if node.op in {"call_module", "get_attr"}:
        return module_label(str(node.target))
    name = packet_name(node.target).strip("_") or "value"
    return SPLITS.get(name, name)


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
    makers = {node: step for step in steps for node in step.makes}
    attention = _attention(steps)
    spans = _Spans(steps, outputs)
    for chain in chains:
        if chain[0] in names:
            continue
        stem = attention.get(chain[0]) or stem_of([makers[node] for node in chain])
        first = makers[chain[0]]
        if len(first.makes) > 1 and stem in {first.label, NAMELESS}:
            stem = f"{first.label}{first.makes.index(chain[0])}"
        name = _free(identifier(stem), taken - spans.over(chain))
        spans.note(name, chain)
        taken.add(name)
        names[chain[0]] = name
    return {node: names[chain[0]] for chain in chains for node in chain}


class _Spans:
    """How long a name is in use, so that one name serves one value after another."""

    def __init__(self, steps: Sequence[Step], outputs: Sequence[Node]) -> None:
        self.made = {node: index for index, step in enumerate(steps) for node in step.makes}
        self.read = {node: index for index, step in enumerate(steps) for node in step.reads}
        self.read |= dict.fromkeys(outputs, len(steps))
        self.ends: dict[str, int] = {}

    def over(self, chain: Sequence[Node]) -> set[str]:
        """The names that nobody needs any more where a chain begins."""
        return {name for name, end in self.ends.items() if end < self.made[chain[0]]}

    def note(self, name: str, chain: Sequence[Node]) -> None:
        """A chain has this name now."""
        self.ends[name] = max(self.read.get(chain[-1], self.made[chain[-1]]), self.made[chain[-1]])


def _chains(
    steps: Sequence[Step], inputs: Mapping[Node, str], outputs: Sequence[Node]
) -> list[list[Node]]:
    """Values that follow one another: each is made where the one before is read last."""
    last = {node: index for index, step in enumerate(steps) for node in step.reads}
    last |= dict.fromkeys(outputs, len(steps))
    chain_of = {node: [node] for node in inputs}
    for index, step in enumerate(steps):
        ended = [node for node in step.after if node in chain_of and last[node] == index]
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


def stem_of(steps: Sequence[Step]) -> str:
    """The name of a chain: what its modules share, its only module, or its only function.

    >>> module = lambda label: Step(label, (), ())
    >>> stem_of([module("branch5x5_1"), module("branch5x5_2")])
    'branch5x5'
    >>> stem_of([Step("avg_pool2d", (), (), function="avg_pool2d"), module("branch_pool")])
    'branch_pool'
    >>> stem_of([module("norm1"), module("mlp")])
    'y'
    """
    if steps[0].fixed:
        return _shortened(steps[0].label) if len(steps) > 1 else steps[0].label
    if len({step.label for step in steps}) == 1:
        return steps[0].label
    if any(step.function == "softmax" for step in steps):
        return "attn"
    labels = [step.label for step in steps if not step.function]
    named = [label for label in labels if not GENERIC.fullmatch(label)]
    if not named:
        several = len({step.function or step.label for step in steps}) > MOST_LABELS
        return NAMELESS if several else steps[0].label
    shared = re.sub(r"_\d+$", "", named[0])
    if all(label == shared or label.startswith(f"{shared}_") for label in named):
        return named[0] if len(named) == 1 else shared
    return NAMELESS


def _shortened(label: str) -> str:
    """The last words of a long name.

    >>> _shortened("relative_position_bias_table")
    'bias_table'
    """
    return label if len(label) <= LONG else "_".join(label.split("_")[-2:])


def _attention(steps: Sequence[Step]) -> dict[Node, str]:
    """Names of three values that come of one, where they are what attention calls so."""
    if not any(step.function in ATTENTION for step in steps):
        return {}
    names: dict[Node, str] = {}
    groups: dict[Node, list[Node]] = {}
    for node in (node for step in steps for node in step.makes):
        if node.target is operator.getitem and isinstance(node.args[1], int):
            source = node.args[0]
            assert isinstance(source, Node)
            groups.setdefault(source, []).append(node)
    for parts in groups.values():
        if sorted(str(part.args[1]) for part in parts) == ["0", "1", "2"]:
            names.update({part: "qkv"[int(str(part.args[1]))] for part in parts})
    return names


def _free(stem: str, taken: set[str]) -> str:
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}{'_' if stem[-1:].isdigit() else ''}{number}"
    return name
