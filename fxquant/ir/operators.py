"""Operators of the core dialect that ATen lacks: sizes taken from another value.

    %token = expand_dim(%cls, %x) {dim=0, like_dim=0} : f32[2,1,64]

They are made of ATen operators, so that autograd, fake tensors and decompositions know them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_library = torch.library.Library("fxquant", "DEF")
_library.define("expand_dim(Tensor(a) self, Tensor like, int dim, int like_dim) -> Tensor(a)")
_library.define(
    "narrow_dim(Tensor(a) self, Tensor like, int dim, int like_dim, int offset=0) -> Tensor(a)"
)


def _expand_dim(self: Tensor, like: Tensor, dim: int, like_dim: int) -> Tensor:
    """A dimension of size 1 repeated as often as a dimension of another value is long."""
    sizes = [-1] * self.dim()
    sizes[dim] = like.shape[like_dim]
    return self.expand(sizes)


def _narrow_dim(self: Tensor, like: Tensor, dim: int, like_dim: int, offset: int = 0) -> Tensor:
    """The beginning of a dimension, as long as a dimension of another value and `offset` more."""
    part: Tensor = torch.ops.aten.slice.Tensor(self, dim, 0, like.shape[like_dim] + offset)
    return part


_library.impl("expand_dim", _expand_dim, "CompositeImplicitAutograd")
_library.impl("narrow_dim", _narrow_dim, "CompositeImplicitAutograd")

expand_dim = torch.ops.fxquant.expand_dim.default
narrow_dim = torch.ops.fxquant.narrow_dim.default
