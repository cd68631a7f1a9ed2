"""The whole file `model.py`: imports, classes, and a function that loads the weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from fxquant.backends.source.blueprints import Draughtsman, is_chain
from fxquant.backends.source.bodies import Body, BodyWriter
from fxquant.backends.source.calls import Call, call_of
from fxquant.backends.source.classes import GeneratedClass, share
from fxquant.backends.source.constructors import class_lines
from fxquant.backends.source.expressions import Names, expression
from fxquant.backends.source.fuse_list import fuse_list
from fxquant.backends.source.layout import INDENT, Group, lines
from fxquant.backends.source.places import Places
from fxquant.backends.source.regions import Region, dissolve, grow, is_step
from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.origin import ModuleCall, Origin
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.spelling import Unspellable, construction, spell
from fxquant.ir.state import state_of
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.float_functional import FloatFunctional
from fxquant.quant.stubs import DeQuantStub, QuantStub
from fxquant.tracing.signature import Signature
from fxquant.tracing.structure import Leaf, Mapping, Sequence, Structure

HEADER = '''\
"""{model}, written by fxquant: {stage}.

The weights stand beside this file, under its name and `.safetensors`; `load()` makes the model with
them.
"""
'''


MODELESS = (QuantStub, DeQuantStub, FloatFunctional, FakeQuantize)  # alike in every mode
FUSE_METHOD = [
    "",
    "    def fuse_list(self):",
    '        """Names of modules that a target computes as one."""',
    "        return FUSE",
]


@dataclass
class SourceFile:
    """A graph as code.

    Attributes:
        text: the file.
        model: name of the model's class.
    """

    text: str
    model: str


def no_comment(node: Node) -> str | None:
    """Lines without comments."""
    return None


def source_file(
    graph_module: GraphModule,
    comment: Callable[[Node], str | None] = no_comment,
    stage: str = "as traced",
) -> SourceFile:
    """Write a graph of any stage as code.

    Raises:
        UnsupportedOp: functions, modules or arguments that have no code, all of them.
    """
    state = state_of(graph_module)
    origin = state.origin if isinstance(state.origin, Origin) else Origin()
    calls = origin.calls or [ModuleCall("")]
    places = Places(graph_module, origin)
    _refuse(graph_module, places)
    root = grow(list(graph_module.graph.nodes), calls, places)
    places.add_called(region.path for region in root.regions())
    known = state.signature if isinstance(state.signature, Signature) else None
    around = _plain_call(graph_module) if known is None else call_of(known)
    bodies = _bodies(root, places, comment)
    outputs = _outputs(graph_module)
    if not (is_chain(root, places) and known is not None and _is_simple(known)):
        placeholders = graph_module.graph.find_nodes(op="placeholder")
        inputs = dict(zip(placeholders, around.inputs, strict=True))
        shape = _flat_tuple(len(outputs)) if known is None else known.output_structure
        writer = BodyWriter(root, places, comment, inputs)
        fixed = known is None or not known.dimensions
        bodies[""] = writer.write_root(around, outputs, shape, shapes=fixed)
    classes = share(Draughtsman(places, root, bodies).draw())
    fused = fuse_list(graph_module) if "modular" in state.properties else None
    return _assemble(graph_module, classes, around, stage, fused)


def _refuse(graph_module: GraphModule, places: Places) -> None:
    """Everything that has no code, in one error."""
    problems: list[Problem] = []
    for node in graph_module.graph.nodes:
        try:
            if is_step(node):
                expression(node, Names(lambda other: other.name), lambda path: path)
        except Unspellable as error:
            text = format_node(node, graph_module)
            problems.append(Problem(str(error), text, source_text(node)))
    for path, module in graph_module.named_modules():
        if places.is_leaf(path):
            try:
                construction(module)
            except Unspellable as error:
                problems.append(Problem(f"{path}: {error}"))
    if problems:
        raise UnsupportedOp(
            "the graph cannot be written as code",
            problems=problems,
            fix="write these parts of the model with functions and modules of torch",
        )


def _bodies(root: Region, places: Places, comment: Callable[[Node], str | None]) -> dict[str, Body]:
    """The bodies of all regions but the root; calls of one module that differ are dissolved."""
    while True:
        bodies: dict[str, Body] = {}
        differing: set[str] = set()
        for region in root.regions():
            if region is root:
                continue
            if is_chain(region, places):
                body = Body()
            else:
                body = BodyWriter(region, places, comment).write()
            known = bodies.setdefault(region.path, body)
            if known != body:
                differing.add(region.path)
        if not differing:
            return bodies
        dissolve(root, differing, places)


def _is_simple(signature: Signature) -> bool:
    """Whether the model takes one tensor and returns one."""
    parameters = list(signature.parameters.parameters.values())
    shape = signature.input_structure
    whole = isinstance(shape, Mapping) and shape.children == (Leaf(0),)
    by_position = [each.kind for each in parameters] == [inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return whole and by_position and signature.output_structure == Leaf(0)


def _plain_call(graph_module: GraphModule) -> Call:
    names = [node.name for node in graph_module.graph.find_nodes(op="placeholder")]
    return Call(parameters=names, inputs=names)


def _flat_tuple(count: int) -> Structure:
    return Sequence(tuple, tuple(Leaf(index) for index in range(count)))


def _outputs(graph_module: GraphModule) -> list[Node]:
    (output,) = graph_module.graph.find_nodes(op="output")
    found = output.args[0]
    items = found if isinstance(found, tuple | list) else (found,)
    return [item for item in items if isinstance(item, Node)]


def _assemble(
    graph_module: GraphModule,
    classes: list[GeneratedClass],
    around: Call,
    stage: str,
    fused: list[list[str]] | None,
) -> SourceFile:
    by_path = {path: made for made in classes for path in made.paths}
    model = by_path[""]
    blocks = [[*lines] for lines in around.definitions.values()]
    if fused is not None:
        blocks.append(_fuse_lines(fused))
    blocks += [class_lines(made, by_path) for made in classes]
    if fused is not None:
        blocks[-1] += FUSE_METHOD
    blocks.append(_loader(graph_module, model.name))
    body = "\n\n\n".join("\n".join(block) for block in blocks) + "\n"
    header = HEADER.format(model=model.name, stage=stage)
    return SourceFile(f"{header}\n{_imports(body, around)}\n\n\n{body}", model.name)


def _loader(graph_module: GraphModule, name: str) -> list[str]:
    """The function that makes the model as it was, in the mode that each module had."""
    training = graph_module.training
    made = f"fqnn.load_weights({name}(), __file__)" + ("" if training else ".eval()")
    mode = "" if training else ", in eval mode"
    head = ["def load():", f'    """The model with its weights{mode}."""']
    targets = {str(node.target) for node in graph_module.graph.find_nodes(op="call_module")}
    others = [
        spell(path)
        for path, module in graph_module.named_modules()
        if path in targets and module.training != training and type(module) not in MODELESS
    ]
    if not others:
        return [*head, f"    return {made}"]
    names = Group("for name in (", tuple(others), ",):" if len(others) == 1 else "):")
    return [
        *head,
        f"    model = {made}",
        *lines(names, INDENT),
        f"        model.get_submodule(name).train({not training})",
        "    return model",
    ]


def _fuse_lines(fused: list[list[str]]) -> list[str]:
    rows = tuple(Group("[", tuple(map(spell, names)), "]") for names in fused)
    if not rows:
        return ["FUSE = []"]
    return ["FUSE = [", *(line for row in rows for line in lines(row, INDENT, suffix=",")), "]"]


TORCH_IMPORTS = (
    ("import torch", r"\btorch\.|\baten\."),
    ("import torch.nn.functional as F", r"\bF\."),
    ("from torch import nn", r"\bnn\."),
)


def _imports(body: str, around: Call) -> str:
    body = re.sub(r"#.*", "", body)  # comments name operators too
    standard = set(around.imports)
    if re.search(r"\bOrderedDict\(", body):
        standard.add("from collections import OrderedDict")
    of_torch = [line for line, needed in TORCH_IMPORTS if re.search(needed, body)]
    sections = [sorted(standard), of_torch, ["from fxquant import nn as fqnn"]]
    text = "\n\n".join("\n".join(section) for section in sections if section)
    return text + ("\n\naten = torch.ops.aten" if re.search(r"\baten\.", body) else "")
