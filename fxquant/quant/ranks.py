"""Calibrate in several processes, each on its part of the data, and end with the same ranges.

    config = QuantConfig(equalize=False)          each rank would equalize by its own samples
    calibrate(prepared, loader_of_this_rank)
    reduce_across_ranks(prepared)                 scales and zero points agree, bit for bit

Every rank gathers what the others' observers saw and merges it in the order of the ranks, so that
all compute the same numbers from the same state.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.fx import GraphModule

from fxquant.errors import CalibrationError
from fxquant.ir.edit import tensor_at
from fxquant.quant.bias_correction import restore_bias
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.observers import Observer
from fxquant.quant.qat.ranks import is_shared
from fxquant.quant.settle import fake_quantizes, settle
from fxquant.quant.weight_rounding import restore_weights

State = dict[str, Tensor]


def reduce_across_ranks(prepared: GraphModule, group: Any = None) -> GraphModule:
    """Merge what the observers of all ranks have seen, and settle the scales anew.

    Biases that were corrected and weights whose rounding was refined on one rank's samples are
    taken back to what they were; call `correct_bias` or `refine_rounding` with the same samples on
    every rank to do it again. Without other processes nothing is done.

    Args:
        prepared: a calibrated graph, the same one on every rank.
        group: the process group; None is the default one.

    Returns:
        The graph itself.

    Raises:
        CalibrationError: weights differ between ranks; or no rank's observer saw anything.
    """
    if not is_shared():
        return prepared
    restore_bias(prepared)
    restore_weights(prepared)
    prepared.recompile()
    modules = _observed(prepared)
    mine = [{k: v.cpu() for k, v in m.observer.state_dict().items()} for m in modules]
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, (_fingerprint(prepared), mine), group)
    marks = [mark for mark, _ in gathered]
    if len(set(marks)) > 1:
        raise CalibrationError(
            f"the weights of {len(marks)} ranks are not the same, so ranges cannot be merged",
            fix="calibrate with QuantConfig(equalize=False, absorb_bias=False): each rank rewrites "
            "layers by its own data",
        )
    for place, module in enumerate(modules):
        _merge(module.observer, [states[place] for _, states in gathered])
        module.assigned = False
    settle(prepared)
    return prepared


def _observed(prepared: GraphModule) -> list[FakeQuantize]:
    """The modules whose range comes from data, each once."""
    modules = dict.fromkeys(module for _, module in fake_quantizes(prepared))
    return [module for module in modules if not module.constant and not module.is_fixed]


def _merge(observer: Observer, states: list[State]) -> None:
    """Set an observer's state to that of all ranks, merged in their order."""
    merged, other = copy.deepcopy(observer).cpu(), copy.deepcopy(observer).cpu()
    merged.load_state_dict(states[0])
    for state in states[1:]:
        other.load_state_dict(state)
        merged.merge(other)
    observer.load_state_dict(merged.state_dict())


def _fingerprint(prepared: GraphModule) -> str:
    """A digest of the constants that the graph reads."""
    digest = hashlib.sha256()
    for node in prepared.graph.find_nodes(op="get_attr"):
        if not node.users:
            continue
        tensor = tensor_at(prepared, node)
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
