"""Operators as steps that integer kernels compute: one function for each, by operator name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch.fx import Node

from .attention import attention
from .division import division
from .normalizations import group_norm, instance_norm, layer_norm, rms_norm
from .steps import Steps

STEPS: Mapping[str, Callable[[Steps, Node], Node]] = {
    "div": division,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "rms_norm": rms_norm,
    "scaled_dot_product_attention": attention,
}
"""What writes the steps of an operator right before it, and returns the node of the result."""

__all__ = ["STEPS", "Steps"]
