"""What `prepare_qat` does around its passes: refusals before, a model of its own after."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from fxquant.errors import InputError
from fxquant.ir.edit import register
from fxquant.ir.state import state_of


def refuse_untrainable(model: object) -> None:
    """Refuse models that cannot be trained as they are.

    Raises:
        InputError: an exported program, or a graph that is functional already.
    """
    fix = "give the module itself: prepare_qat(model, example_inputs)"
    if isinstance(model, ExportedProgram):
        what = "an exported program cannot be trained: its batch norms are functions of one mode"
        raise InputError(what, fix=fix)
    if isinstance(model, GraphModule) and "functional" in state_of(model).properties:
        raise InputError("the graph has been through other passes already", fix=fix)


UNREAD = "unread"
"""Where a prepared graph keeps the names of the model's tensors that it does not read."""


def own_copy(graph_module: GraphModule, model: nn.Module) -> GraphModule:
    """A copy with parameters and buffers of its own, each module in the mode of the model's.

    A tensor that the model knows by several names has them all, so that checkpoints load.
    """
    graph_module.meta[UNREAD] = _name_again(graph_module, model)
    made = copy.deepcopy(graph_module)
    modes = {path: module.training for path, module in model.named_modules()}
    for path, module in made.named_modules():
        module.training = modes.get(path, model.training)
    return made


def _name_again(graph_module: GraphModule, model: nn.Module) -> tuple[str, ...]:
    """Register shared tensors under all their names; returns the names of tensors not read."""
    present = graph_module.state_dict(keep_vars=True)
    alive = {id(tensor) for tensor in present.values()}
    unread = []
    for path, tensor in model.state_dict(keep_vars=True).items():
        if path in present:
            continue
        if id(tensor) in alive and isinstance(tensor, Tensor):
            register(graph_module, path, tensor)
        else:
            unread.append(path)
    return tuple(unread)
