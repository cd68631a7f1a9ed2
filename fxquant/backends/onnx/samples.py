"""A sample of the user's data as the inputs of the file, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from fxquant.errors import InputError
from fxquant.ir.state import state_of
from fxquant.tracing.signature import Signature


def flat_inputs(graph_module: GraphModule, sample: Any) -> dict[str, Tensor]:
    """The inputs of the file for a sample: a tensor, a tuple of inputs, or a dict by name.

    Raises:
        InputError: an input is missing, or has another shape or dtype.
    """
    sample = pytree.tree_map_only(np.ndarray, torch.from_numpy, sample)
    kwargs = dict(sample) if isinstance(sample, Mapping) else {}
    args = () if kwargs else tuple(sample) if isinstance(sample, list | tuple) else (sample,)
    signature = state_of(graph_module).signature
    flat = signature.flatten(args, kwargs) if isinstance(signature, Signature) else args
    nodes = graph_module.graph.find_nodes(op="placeholder")
    if len(flat) != len(nodes):
        raise InputError(f"the file has {len(nodes)} inputs, the sample {len(flat)}")
    pairs = zip(nodes, flat, strict=True)
    return {str(node.target): value.detach().cpu().contiguous() for node, value in pairs}
