"""Moving, joining, selecting and comparing, torch against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .cases import Case, case, each, integers, normal
from .one_model import after_convolution, check, check_int8

X = normal(2, 4, 6, 8)


def _zeroed(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1:3] = 0
    return y


def _filled(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = x[:, 1] * 2
    return y


def _shuffled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    parts = x.view(batch, 2, channels // 2, height, width)
    return parts.transpose(1, 2).reshape(batch, channels, height, width)


MOVES: dict[str, Callable[..., Any]] = {
    "view": lambda x: x.view(x.shape[0], -1),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, 2),
    "t": lambda x: x[0, 0].t(),
    "movedim": lambda x: x.movedim(1, -1),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat-rank": lambda x: x.repeat(2, 1, 1, 1, 1),
    "repeat-interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: x.tile(2),
    "chunk": lambda x: torch.cat([part * 1.5 for part in x.chunk(2, 1)], 1),
    "split": lambda x: torch.stack(x.split(2, 1), 1),
    "slice": lambda x: x[:, 1:3],
    "steps": lambda x: x[:, ::2, 1::3],
    "select": lambda x: x[:, 1],
    "from-the-end": lambda x: x[:, -1, ..., -3:],
    "flip": lambda x: x.flip(1, 2),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "pad": lambda x: functional.pad(x, (1, 2, 0, 3)),
    "pad-reflect": lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect"),
    "pad-replicate": lambda x: functional.pad(x, (1, 2, 2, 1), mode="replicate"),
    "pixel-shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "pixel-unshuffle": lambda x: functional.pixel_unshuffle(x, 2),
    "channel-shuffle": nn.ChannelShuffle(2),
    "shuffle-by-hand": _shuffled,
    "narrow": lambda x: x.narrow(1, 1, 2),
    "cat": lambda x: torch.cat([x, x * 2], 1),
    "stack": lambda x: torch.stack([x, x * 2], 1),
    "index": lambda x: x[:, [0, 2]],
    "clone": lambda x: x.clone() + 1,
}


@each(MOVES)
def test_move(found: Callable[..., Any]) -> None:
    check(found, X)


@each(MOVES)
def test_int8_move(found: Callable[..., Any]) -> None:
    check_int8(after_convolution(found), normal(1, 4, 6, 8), steps=2.01)


OTHERS: dict[str, Callable[..., Any]] = {
    "repeat-interleave-flat": lambda x: x.repeat_interleave(2),
    "cat-six": lambda x: torch.cat([x] * 6, 1),
    "split-uneven": lambda x: x.split([1, 3], 1),
    "split-rest": lambda x: x.split(3, 1),
    "chunk-three": lambda x: x.chunk(3, 2),
    "tensor-split": lambda x: x.tensor_split(3, 1),
    "unbind": lambda x: x.unbind(1),
    "roll-flat": lambda x: x.roll(2),
    "pad-value": lambda x: functional.pad(x, (1, 2), value=3.0),
    "pad-negative": lambda x: functional.pad(x, (-1, 2)),
    "pad-circular": lambda x: functional.pad(x, (1, 2, 2, 1), mode="circular"),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0, 0], x[0, 0, 1], indexing="ij"),
    "tril": torch.tril,
    "triu": lambda x: x.triu(1),
    "unfold": lambda x: functional.unfold(x, 3, padding=1),
    "fold": lambda x: functional.fold(functional.unfold(x, 2, stride=2), (6, 8), 2, stride=2),
    "fold-overlapping": lambda x: functional.fold(
        functional.unfold(x, 3, padding=1), (6, 8), 3, padding=1
    ),
    "tensor-unfold": lambda x: x.unfold(2, 3, 2),
    "diagonal": lambda x: torch.diagonal(x, 1, 2, 3),
    "diagonal-matrix": lambda x: torch.diag(x[0, 0, 0]),
    "assign-number": _zeroed,
    "assign-value": _filled,
    "masked": lambda x: x.masked_fill(x > 0, -1.0),
    "where": lambda x: torch.where(x > 0, x, x * 2),
    "where-number": lambda x: torch.where(x > 0, x, 0.0),
    "where-numbers": lambda x: torch.where(x > 0, 1.0, 2.0),
    "index-from-the-end": lambda x: x[:, [-1, 0]],
    "index-two": lambda x: x[[0, 1], [1, 2]],
    "index-select": lambda x: torch.index_select(x, 1, torch.tensor([2, 0])),
    "gather": lambda x: torch.gather(
        x, 1, torch.tensor([1, 0]).view(1, 2, 1, 1).expand(2, 2, 6, 8)
    ),
    "arange": lambda x: x + torch.arange(8),
    "full": lambda x: torch.full_like(x, 2.0) + x,
    "eye": lambda x: x @ torch.eye(8),
    "to-int": lambda x: x.to(torch.int32),
    "to-long": lambda x: x.long(),
    "compare": lambda x: (x <= 0.3) & (x > -0.2) | (x == 0),
    "not": lambda x: ~(x > 0) ^ (x < 1),
    "bool-times": lambda x: (x > 0) * x,
    "one-hot": lambda x: functional.one_hot(x.long().abs()[0, 0], 9),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
    "isclose": lambda x: torch.isclose(x, x),
    "identity": lambda x: x,
    "two-results": lambda x: (x + 1, x),
    "as-strided": lambda x: torch.as_strided(x, (2, 2), (1, 2)),
}


@each(OTHERS)
def test_other(found: Callable[..., Any]) -> None:
    check(found, X)


def test_embedding() -> None:
    check(nn.Embedding(10, 4), integers(0, 10, 2, 5))


INT8: dict[str, Callable[..., Any]] = {
    "cat-of-two-ranges": lambda x: torch.cat([x, functional.relu(x) * 0.1], 1),
    "pad-value": lambda x: functional.pad(x, (1, 1, 1, 1), value=0.7),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "masked": lambda x: x.masked_fill(x > 0, -1.0),
    "assign": _zeroed,
    "two-results": lambda x: (x, functional.relu(x)),
}


@each(INT8)
def test_int8_other(found: Callable[..., Any]) -> None:
    check_int8(after_convolution(found), normal(1, 4, 6, 8))


RESIZES: dict[str, Case] = {
    f"{mode}-{size}": case(
        lambda x, size=size, mode=mode: functional.interpolate(x, size, mode=mode),
        normal(1, 4, 9, 11),
    )
    for size in ((18, 22), (9, 22), (5, 6), (13, 17), (27, 33))
    for mode in ("nearest", "nearest-exact", "bilinear")
}
SCALES: dict[str, Case] = {
    f"{mode}-{scale}": case(
        lambda x, scale=scale, mode=mode: functional.interpolate(x, scale_factor=scale, mode=mode),
        normal(1, 4, 9, 11),
    )
    for scale in (2, 1.5, 0.5, 0.7, 3)
    for mode in ("nearest", "bilinear")
}
FORMS: dict[str, Case] = {
    "corners": case(
        lambda x: functional.interpolate(x, (13, 17), mode="bilinear", align_corners=True),
        normal(1, 4, 9, 11),
    ),
    "linear": case(
        lambda x: functional.interpolate(x, scale_factor=2, mode="linear"), normal(1, 3, 7)
    ),
    "nearest-1d": case(lambda x: functional.interpolate(x, scale_factor=2), normal(1, 3, 7)),
    "nearest-3d": case(lambda x: functional.interpolate(x, scale_factor=2), normal(1, 2, 3, 3, 3)),
    "bicubic": case(
        lambda x: functional.interpolate(x, scale_factor=2, mode="bicubic"), normal(1, 4, 9, 11)
    ),
    "area": case(lambda x: functional.interpolate(x, (3, 5), mode="area"), normal(1, 4, 9, 11)),
    "antialias": case(
        lambda x: functional.interpolate(x, (5, 5), mode="bilinear", antialias=True),
        normal(1, 4, 9, 11),
    ),
}


@each({**RESIZES, **SCALES, **FORMS})
def test_resize(found: Case) -> None:
    check(found.model, *found.inputs)


INT8_RESIZES = {"nearest-(18, 22)", "nearest-exact-(18, 22)", "bilinear-(18, 22)"}


@each({name: found for name, found in RESIZES.items() if name in INT8_RESIZES})
def test_int8_resize(found: Case) -> None:
    check_int8(after_convolution(found.model), normal(1, 4, 9, 11))
