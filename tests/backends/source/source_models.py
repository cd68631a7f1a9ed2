"""Small models with one difficulty each, for the generated file."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model and one call of it.

    Attributes:
        make: makes the model.
        args: its positional inputs.
        kwargs: its keyword inputs.
        same_text: whether the graph of the file prints like the graph it came from.
    """

    make: Callable[[], nn.Module]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    same_text: bool = True


class BasicBlock(nn.Module):
    """The block of a ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class SmallResNet(nn.Module):
    """Two widths of blocks, in a sequence and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(4), BasicBlock(4))
        self.widen = nn.Conv2d(4, 8, 1)
        self.blocks = nn.ModuleList(BasicBlock(8) for _ in range(3))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(F.relu(self.conv(x)))
        x = self.widen(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.decoder = nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoder(self.embed(ids))  # type: ignore[no-any-return]


class Tensors(nn.Module):
    """Parameters and buffers that the code reads itself, small and large, saved and not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.gain = nn.Parameter(torch.randn(3, 1, 1))
        self.register_buffer("shift", torch.randn(3, 1, 1))
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]), persistent=False)
        self.register_buffer("large", torch.randn(3, 4, 4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) * self.gain + self.get_buffer("shift") * self.masks()
        return y + self.get_buffer("large")

    def masks(self) -> Tensor:
        """The mask as a factor of channels."""
        return self.get_buffer("mask").view(3, 1, 1)


class Shared(nn.Module):
    """One module under three names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = Tensors()
        self.b = self.a
        self.more = nn.ModuleList([self.a, Tensors()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        for module in self.more:
            x = module(x)
        return x


class Activated(nn.Module):
    """A layer whose caller says whether an activation follows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        y: Tensor = self.linear(x)
        return y.relu() if relu else y


class CalledDifferently(nn.Module):
    """Two calls of one module that do not do the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Activated()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x, True))  # type: ignore[no-any-return]


class Structures(nn.Module):
    """Dicts and lists in and out, and an argument by keyword."""

    def forward(
        self, x: Tensor, options: dict[str, Any] | None = None, *, scale: float = 2.0
    ) -> dict[str, Any]:
        assert options is not None
        return {"y": x * scale + options["mask"], "z": [options["list"][0], x], "none": None}


Pair = namedtuple("Pair", ["logits", "aux"])


class NamedResult(nn.Module):
    """A named tuple, one part of which is None."""

    def forward(self, x: Tensor) -> Any:
        return Pair(x + 1, None)


@dataclass
class Record:
    """A result with two fields."""

    high: Tensor
    low: Tensor | None = None


class RecordResult(nn.Module):
    """A dataclass."""

    def forward(self, x: Tensor) -> Record:
        return Record(x + 1, x - 1)


class InPlace(nn.Module):
    """Writes into a constant, into a buffer and into a value."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.get_buffer("state")
        y = torch.zeros(2, 3)
        y[:, ::2] = x[:, ::2]
        y.mul_(2)
        state.add_(x)
        y += state
        return y, state


class Lists(nn.Module):
    """Lists of modules, whole and sliced, lists and dicts of parameters, parts of tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))
        self.gains = nn.ParameterList([torch.randn(3), torch.randn(3)])
        self.biases = nn.ParameterDict({"last": torch.randn(3)})
        self.heads = nn.ModuleDict({"a-b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = layer(x)
        for layer in self.layers[1:3]:
            x = layer(x)
        a, b, c = x.chunk(3, -1)
        values, indices = x.max(-1)
        x = x + torch.arange(3) + self.gains[0] * self.gains[1] + self.biases["last"]
        x = self.heads["c"](self.heads["a-b"](x))
        return x + a * b - c + values.unsqueeze(-1), indices


class Dropouts(nn.Module):
    """A module and a function that follow the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.dropout(x), 0.2, self.training)


def leaky(x: Tensor) -> Tensor:
    """A function of the user's."""
    return torch.where(x > 0, x, x * 0.1)


class AnyArguments(nn.Module):
    """Takes what it is given."""

    def forward(self, first: Tensor, /, *others: Tensor, **named: Tensor) -> Tensor:
        for each in others:
            first = first + each
        return first * named["scale"]


class Operators(nn.Module):
    """Python's operators, subscripts and functions of the user's."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            z = leaky(leaky(x))
        return x @ y.T, -z, x[..., None, :1], x**2, 1 - x, x / -2.0, ~(x > 0), x.clamp(max=1)


class Two(nn.Module):
    """Two values in, two out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(a) + b, self.second(b)


class ManyValues(nn.Module):
    """Modules that take and give several values, one of them a parameter of the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = Two(), Two()
        self.outer = nn.Parameter(torch.randn(3))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        p, q = self.x(a, b)
        p, q = self.y(p, self.outer)
        return p + q  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A module with nested results."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x)
        return y, h, c


def encoder() -> nn.Module:
    """torch's own encoder, whose modules are followed inside."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


def sequence() -> nn.Module:
    """A model that is a container, with a part that has names."""
    named = nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(48, 2)))
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), named)


class Joining(nn.Module):
    """A layer that takes any number of values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 1)

    def forward(self, values: list[Tensor]) -> Tensor:
        return self.conv(torch.cat(values, 1))  # type: ignore[no-any-return]


class Dense(nn.Module):
    """Layers that read what all before them made."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Joining(3 + 2 * number) for number in range(4))

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer in self.layers:
            values.append(layer(values))
        return values[-1]


def pruned() -> nn.Module:
    """A layer whose attributes were changed after it was made."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    conv = model[0]
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    conv.weight = nn.Parameter(conv.weight.detach()[:2])
    conv.bias = nn.Parameter(conv.bias.detach()[:2])
    conv.padding = (1, 1)
    return model


X, IMAGE = torch.randn(2, 3), torch.randn(2, 3, 4, 4)
CASES: dict[str, Case] = {
    "resnet": Case(SmallResNet, (IMAGE,), {}),
    "tied": Case(Tied, (torch.tensor([[0, 3, 6]]),), {}),
    "tensors": Case(Tensors, (IMAGE,), {}),
    "shared": Case(Shared, (IMAGE,), {}),
    "called-differently": Case(CalledDifferently, (torch.randn(2, 4),), {}, same_text=False),
    "structures": Case(
        Structures, (X,), {"options": {"mask": torch.randn(2, 3), "list": [torch.randn(1)]}}
    ),
    "named-result": Case(NamedResult, (X,), {}),
    "record": Case(RecordResult, (X,), {}),
    "in-place": Case(InPlace, (X,), {}, same_text=False),
    "lists": Case(Lists, (X,), {}),
    "any-arguments": Case(AnyArguments, (X, X, X), {"scale": torch.randn(3)}),
    "dropouts": Case(Dropouts, (X,), {}),
    "operators": Case(Operators, (X, torch.randn(2, 3)), {}),
    "many-values": Case(ManyValues, (X, torch.randn(2, 3)), {}),
    "recurrent": Case(Recurrent, (torch.randn(2, 5, 3),), {}),
    "encoder": Case(encoder, (torch.randn(2, 4, 8),), {}),
    "sequence": Case(sequence, (IMAGE,), {}),
    "dense": Case(Dense, (IMAGE,), {}),
    "pruned": Case(pruned, (IMAGE,), {}),
    "layer": Case(lambda: nn.Linear(3, 3), (X,), {}),
}
