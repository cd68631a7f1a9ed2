"""A sample of the user's data as the inputs of the file.

    (f32[1,3,32,32],)  ->  f32[1,3,32,32]    the file takes what the model takes
                       ->  f32[1,32,32,3]    … channels last
                       ->  i8[1,32,32,3]     … as integers, of the input's scale and zero point

So the same data serve for calibration and verification, whatever stands at the file's borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from fxquant.backends.tflite.dialect import QType
from fxquant.backends.tflite.kernels.quantization import quantize_real
from fxquant.backends.tflite.layout.rewrite import IO_PERMUTATION
from fxquant.backends.tflite.serialize import input_type
from fxquant.errors import InputError
from fxquant.ir.edit import code_generator
from fxquant.ir.types import TensorType
from fxquant.tracing.signature import Signature, bind
from fxquant.tracing.structure import Mapping as Arguments
from fxquant.tracing.structure import match


def call_arguments(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A sample as the arguments of a call: a dict by name, a sequence by position.

    >>> call_arguments({"x": 1}), call_arguments((1, 2)), call_arguments(3)
    (((), {'x': 1}), ((1, 2), {}), ((3,), {}))
    """
    sample = pytree.tree_map_only(np.ndarray, torch.from_numpy, sample)
    if isinstance(sample, Mapping):
        return (), dict(sample)
    return (tuple(sample) if isinstance(sample, list | tuple) else (sample,)), {}


def flat_inputs(graph_module: GraphModule, sample: Any) -> tuple[Tensor, ...]:
    """The values of the placeholders for a sample.

    Raises:
        InputError: an input is missing, or has another shape or dtype.
    """
    args, kwargs = call_arguments(sample)
    signature = getattr(code_generator(graph_module.graph), "signature", None)
    given = [*args, *kwargs.values()]
    if isinstance(signature, Signature):
        given = _leaves(signature, args, kwargs)
    return fitted_inputs(graph_module, given)


def fitted_inputs(graph_module: GraphModule, given: Sequence[Any]) -> tuple[Tensor, ...]:
    """The same for the tensors of a sample, in order."""
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    if len(given) != len(placeholders):
        raise InputError(f"the file has {len(placeholders)} inputs, the sample {len(given)}")
    return tuple(map(_fitted, placeholders, given))


def _leaves(signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    structure = signature.input_structure
    assert isinstance(structure, Arguments)
    bound = bind(signature.parameters, args, kwargs)
    parts = zip(structure.keys, structure.children, strict=True)
    return [value for name, child in parts for _, value in match(child, bound[name], name)]


def _fitted(placeholder: Node, value: Any) -> Tensor:
    kind, name = input_type(placeholder), str(placeholder.target)
    if not isinstance(value, Tensor):
        raise InputError(f"input {name} is a {type(value).__name__}, not a tensor {kind}")
    fitted = _arranged(value.detach().cpu(), kind, placeholder.meta.get(IO_PERMUTATION))
    if not _fits(fitted, kind):
        raise InputError(f"input {name} has shape {list(value.shape)}, not {list(kind.shape)}")
    if kind.quantization is not None and fitted.dtype.is_floating_point:
        dtype = str(kind.dtype).removeprefix("torch.")
        scale, zero_point = kind.quantization.scale[0], kind.quantization.zero_point[0]
        fitted = quantize_real(fitted, QType(dtype, scale, zero_point)).values
    if fitted.dtype != kind.dtype:
        raise InputError(f"input {name} has dtype {fitted.dtype}, not {kind.dtype}")
    return fitted.contiguous()


def _arranged(value: Tensor, kind: TensorType, permutation: Sequence[int] | None) -> Tensor:
    """The model's value in the file's order of dimensions; one that is in it already stays.

    Where both orders have the same shape, the value is taken to be the model's, if the graph
    says by `permutation` how the file turns it.
    """
    if permutation is not None and len(permutation) == value.dim():
        turned = value.permute(*permutation)
        return turned if _fits(turned, kind) else value
    return value if _fits(value, kind) or value.dim() < 3 else value.movedim(1, -1)


def _fits(value: Tensor, kind: TensorType) -> bool:
    return value.dim() == len(kind.shape) and all(
        wanted in (-1, size) for size, wanted in zip(value.shape, kind.shape, strict=True)
    )
