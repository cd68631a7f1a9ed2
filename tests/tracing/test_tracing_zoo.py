"""Whole networks of torchvision replay with zero difference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fxquant.tracing import trace
from tests.support.vision import SMALL_TRANSFORMERS, small_transformer, vision_models
from tests.tracing.replay import assert_replays

NETS = (
    "resnet18 resnet50 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet1_0"
    " efficientnet_b0 regnet_y_400mf squeezenet1_0 shufflenet_v2_x1_0 densenet121 googlenet"
    " inception_v3 vgg11_bn alexnet vit swin"
)
SIZES = {"inception_v3": 75, "densenet121": 32, "vit": 32, "swin": 32}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "vgg11_bn": {"init_weights": False},
}
TRAINED = {"mobilenet_v2", "efficientnet_b0", "googlenet", "swin"}


def network(name: str) -> nn.Module:
    """The architecture with weights that cost little time to make."""
    try:
        models = vision_models()
    except ImportError:
        pytest.skip("torchvision is not installed")
    if name in SMALL_TRANSFORMERS:
        return fill(small_transformer(name))
    if name == "regnet_y_400mf":  # computes its widths with tensors
        return fill(models.get_model(name))
    with torch.device("meta"):
        model: nn.Module = models.get_model(name, **OPTIONS.get(name, {}))
        narrow(model)
    return fill(model.to_empty(device="cpu"))


def narrow(model: nn.Module) -> None:
    """Let wide classifiers have few hidden values."""
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module.out_features == 4096:
            width = module.in_features if module.in_features > 4096 else 16
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent).add_module(name, nn.Linear(width, 16))
        elif isinstance(module, nn.Linear) and module.in_features == 4096:
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent).add_module(name, nn.Linear(16, 10))


def fill(model: nn.Module) -> nn.Module:
    """Weights of a plausible size; batch-norm statistics that are not zero and one."""
    for key, tensor in model.state_dict().items():
        if "running_var" in key:
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            bound = 1.5 / max(tensor[0].numel() if tensor.dim() else 1, 1) ** 0.5
            tensor.uniform_(-bound, bound)
        elif "num_batches_tracked" in key:
            tensor.zero_()
    return model


@pytest.mark.parametrize("name", NETS.split())
def test_network_replays(name: str) -> None:
    """Other images than the example, every bit the same."""
    size = SIZES.get(name, 64)
    modes = (False, True) if name in TRAINED else (False,)
    images = torch.randn(2, 3, size, size)
    graph = assert_replays(network(name), images, modes=modes, copies=name in TRAINED)
    assert all("val" in node.meta for node in graph.graph.nodes)


def test_real_tensors_give_the_same_graph() -> None:
    """`fake=False` records the same nodes."""
    model = network("mobilenet_v3_small").eval()
    image = torch.randn(1, 3, 32, 32)
    fake, real = trace(model, (image,)), trace(model, (image,), fake=False)
    assert str(fake.graph) == str(real.graph)
