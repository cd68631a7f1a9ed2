"""A graph as a Python file that runs by itself: imports, weights, a module with `forward`.

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            place(self, "conv.weight", nn.Parameter(WEIGHTS["conv.weight"]))
            place(self, "norm", nn.BatchNorm2d(4, eps=1e-05, …))

        def forward(self, x):
            conv_weight = self.conv.weight
            conv = torch.ops.aten.conv2d.default(x, conv_weight, None, [1, 1], [1, 1])
            …

Weights stand in safetensors files beside it, those that an earlier stage wrote in that stage's.
Modules of torch are made by their constructors, all others are pickled beside it.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from fxquant.ir.edit import get_attribute
from fxquant.ir.spelling import Unspellable, construction

PROGRAM = '''\
"""{title}

`python {file}` calls it on random inputs and prints the types of the outputs.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
{imports}
HERE = Path(__file__).parent
FILES = {files}
INPUTS = {inputs}


def read(name):
    """A tensor of the graph: FILES says in which file and under which key."""
    file, key = FILES[name]
    with safe_open(str(HERE / file), framework="pt") as weights:
        # A copy: memory of a file is not aligned, and kernels then sum in another order.
        return weights.get_tensor(key).clone()


def place(root, path, value):
    """Put a tensor or a module at a dotted path, as attribute of a chain of modules."""
    *parents, name = path.split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        root.register_buffer(name, value)
    else:
        setattr(root, name, value)


class Graph(nn.Module):
    """Flat: one tensor for each input of the graph, a tuple of its outputs."""

    def __init__(self):
        super().__init__()
{members}
{forward}

def inputs():
    """Random inputs; integers are 0 or 1, which are indices into anything."""
    torch.manual_seed(0)
    made = [torch.randn(shape) if dtype.is_floating_point else torch.randint(0, 2, shape)
            for shape, dtype in INPUTS]
    return [value.to(dtype) for value, (_, dtype) in zip(made, INPUTS)]


if __name__ == "__main__":
    with torch.no_grad():
        for number, output in enumerate(Graph().eval()(*inputs())):
            print(number, tuple(output.shape), output.dtype)
'''


@dataclass
class Writer:
    """Writes stages as Python files into one folder; a tensor that several stages read once.

    Attributes:
        folder: where the files go.
        written: file and key of each tensor so far, and the tensor, so that its memory stays its.
    """

    folder: Path
    written: dict[object, tuple[str, str, Tensor]] = field(default_factory=dict)

    def write(self, stem: str, graph_module: GraphModule, title: str) -> Path:
        """Write `stem.py` and the files that it reads; the path of the former."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{stem}.py"
        tensors = dict(_tensors(graph_module))
        modules = dict(_modules(graph_module))
        spelled = {name: _spelled(module) for name, module in modules.items()}
        for name, module in modules.items():
            if spelled[name] is not None:
                state = module.state_dict()
                tensors.update({f"{name}.{key}": state[key] for key in state})
        files = self._save(stem, tensors)
        pickled = {name: module for name, module in modules.items() if spelled[name] is None}
        if pickled:
            torch.save(pickled, self.folder / f"{stem}.modules.pt")
        members = [*_tensor_members(graph_module), *_module_members(modules, spelled, stem)]
        imports, forward = _code(graph_module)
        text = PROGRAM.format(
            title=title,
            file=path.name,
            imports="".join(line + "\n" for line in imports),
            files=_table(files),
            inputs=_inputs(graph_module),
            members="".join(f"        {line}\n" for line in members) or "        pass\n",
            forward=forward,
        )
        path.write_text(text)
        return path

    def _save(self, stem: str, tensors: dict[str, Tensor]) -> dict[str, tuple[str, str]]:
        """Where each tensor stands; those that no file has yet are written."""
        new: dict[str, Tensor] = {}
        places: dict[str, tuple[str, str]] = {}
        for name, tensor in tensors.items():
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            known = self.written.get(key) if tensor.numel() else None
            if known is None:
                known = self.written[key] = (f"{stem}.safetensors", name, tensor)
                new[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            places[name] = known[:2]
        if new:
            save_file(new, self.folder / f"{stem}.safetensors")
        return places


def _tensors(graph_module: GraphModule) -> Iterator[tuple[str, Tensor]]:
    for node in graph_module.graph.find_nodes(op="get_attr"):
        value = get_attribute(graph_module, str(node.target))
        if isinstance(value, Tensor):
            yield str(node.target), value


def _modules(graph_module: GraphModule) -> Iterator[tuple[str, nn.Module]]:
    for node in graph_module.graph.find_nodes(op="call_module"):
        yield str(node.target), get_attribute(graph_module, str(node.target))


def _spelled(module: nn.Module) -> str | None:
    """The call that makes a module of torch anew, None if there is none."""
    try:
        made = construction(module)
    except Unspellable:
        return None
    return made.code if made.callee.startswith("nn.") and not made.overrides else None


def _tensor_members(graph_module: GraphModule) -> list[str]:
    lines = []
    for name, value in dict(_tensors(graph_module)).items():
        read = f'read("{name}")'
        if isinstance(value, nn.Parameter) and value.is_floating_point():
            read = f"nn.Parameter({read})"
        lines.append(f'place(self, "{name}", {read})')
    return lines


def _module_members(
    modules: dict[str, nn.Module], spelled: dict[str, str | None], stem: str
) -> list[str]:
    lines = []
    if None in spelled.values():
        lines.append(f'pickled = torch.load(HERE / "{stem}.modules.pt", weights_only=False)')
    for name, module in modules.items():
        if spelled[name] is None:
            lines.append(f'place(self, "{name}", pickled["{name}"])')
            continue
        lines.append(f'place(self, "{name}", {spelled[name]})')
        keys = list(module.state_dict())
        if keys:
            state = f'{{key: read("{name}." + key) for key in {keys}}}'
            lines.append(f'self.get_submodule("{name}").load_state_dict({state})')
    return lines


def _code(graph_module: GraphModule) -> tuple[list[str], str]:
    """The lines that import what `forward` calls, and `forward` itself, indented."""
    plain = Graph()
    copied: dict[Node, Node] = {}
    plain.output(plain.graph_copy(graph_module.graph, copied))
    code = plain.python_code("self")
    words = set(re.findall(r"\w+", code.src))
    used = {name: value for name, value in code.globals.items() if name in words}
    imports = sorted(filter(None, (_import(name, value) for name, value in used.items())))
    body = re.sub(r"^(?=.)", "    ", code.src.strip(), flags=re.MULTILINE)
    return imports, body + "\n"


def _import(name: str, value: Any) -> str | None:
    """The line that makes a name of the generated code known; None where it is anyway."""
    if isinstance(value, types.ModuleType):
        return None if name == "torch" else f"import {value.__name__} as {name}"
    if isinstance(value, float):
        return f'{name} = float("{value}")'
    module, label = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if value is torch.device:
        module, label = "torch", "device"
    if module in {None, "builtins"} or not label.isidentifier():
        return None
    return f"from {str(module).replace('_operator', 'operator')} import {label} as {name}"


def _table(files: dict[str, tuple[str, str]]) -> str:
    lines = [f"    {name!r}: {place!r}," for name, place in files.items()]
    return "\n".join(["{", *lines, "}"]) if lines else "{}"


def _inputs(graph_module: GraphModule) -> str:
    values = [node.meta.get("val") for node in graph_module.graph.find_nodes(op="placeholder")]
    pairs = [(tuple(map(int, value.shape)), value.dtype) for value in values if _known(value)]
    return "[" + ", ".join(f"({shape}, {dtype})" for shape, dtype in pairs) + "]"


def _known(value: object) -> bool:
    return isinstance(value, Tensor)
