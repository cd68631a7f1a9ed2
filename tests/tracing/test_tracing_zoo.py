"""Whole networks of torchvision replay with zero difference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxquant.tracing import trace
from tests.support.vision import vision_models
from tests.tracing.replay import assert_replays

SIZES = {"inception_v3": 75, "alexnet": 64, "vit_b_16": 32, "densenet121": 32, "swin_t": 64}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": 32},
}
NETS = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet1_0"
    " efficientnet_b0 regnet_y_400mf squeezenet1_0 shufflenet_v2_x1_0 densenet121 googlenet"
    " inception_v3 vgg11_bn alexnet vit_b_16 swin_t"
)
TRAINED = {"mobilenet_v2", "efficientnet_b0", "googlenet", "swin_t"}


def network(name: str) -> torch.nn.Module:
    """The architecture with weights that cost no time to make."""
    models = pytest.importorskip("torchvision") and vision_models()
    with torch.device("meta"):
        model: torch.nn.Module = models.get_model(name, **OPTIONS.get(name, {}))
    fresh = model.to_empty(device="cpu")
    for key, tensor in fresh.state_dict().items():
        numbers = torch.arange(tensor.numel()).remainder_(101).view(tensor.shape)
        if "running_var" in key:
            tensor.copy_(numbers / 100 + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_((numbers - 50) / 50 / max(tensor[0].numel(), 1) ** 0.5)
        elif tensor.dim() == 0:
            tensor.zero_()
        else:
            tensor.copy_(numbers % 9)
    return fresh


@pytest.mark.parametrize("name", NETS.split())
def test_network_replays(name: str) -> None:
    """Other images than the example, every bit the same."""
    size = SIZES.get(name, 64)
    modes = (False, True) if name in TRAINED else (False,)
    graph = assert_replays(network(name), torch.randn(2, 3, size, size), modes=modes)
    assert all("val" in node.meta for node in graph.graph.nodes)


def test_real_tensors_give_the_same_graph() -> None:
    """`fake=False` records the same nodes."""
    model = network("mobilenet_v3_small").eval()
    image = torch.randn(1, 3, 32, 32)
    fake, real = trace(model, (image,)), trace(model, (image,), fake=False)
    assert str(fake.graph) == str(real.graph)
