"""Several clamps in a row become one, and the ranges that targets fuse get their own operator.

%a = clamp(%x) {min=0}; %b = clamp(%a) {max=6}   ->   %b = relu6(%x)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fxquant.passes.fusion.match import Match
from fxquant.passes.fusion.registry import register_fusion
from fxquant.passes.fusion.wildcards import any_float

NAMES = ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max")
NAMED = {(0.0, math.inf): F.relu, (0.0, 6.0): F.relu6}


def one_clamp(x: Tensor, low: float = any_float, high: float = any_float) -> Tensor:
    """The range in as few words as possible."""
    named = NAMED.get((float(low), float(high)))
    if named is not None:
        return named(x)
    bounds = (None if math.isinf(bound) else bound for bound in (low, high))
    return torch.clamp(x, *bounds)


def _worth_it(match: Match) -> bool | str:
    low, high = match["low"], match["high"]
    if low > high:
        return f"the range {low:g} … {high:g} is empty"
    return len(match.nodes) > 1 or (low, high) in NAMED or "it is one clamp already"


@register_fusion("clamps", replace=one_clamp, check=_worth_it, needs=NAMES)
def clamp(x: Tensor, low: float = any_float, high: float = any_float) -> Tensor:
    """Any clamp, or any number of them in a row."""
    return torch.clamp(x, low, high)
