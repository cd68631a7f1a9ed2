"""Finding a model by name and loading its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fxquant.cli.model_source import load_model
from fxquant.errors import InputError
from tests.cli.sample_models import Net, make

MODULE = "tests.cli.sample_models"


@pytest.mark.parametrize("name", ["make", "Net", "ready"])
def test_function_class_and_ready_module(name: str) -> None:
    model = load_model(f"{MODULE}:{name}")
    assert type(model).__name__ == "Net"
    assert not model.training


def test_file_of_a_model(tmp_path: Path) -> None:
    file = tmp_path / "my_net.py"
    file.write_text("import torch\ndef net():\n    return torch.nn.Linear(2, 3)\n")
    assert isinstance(load_model(f"{file}:net"), torch.nn.Linear)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("net", "does not say where the model is"),
        ("no_such_package:net", "there is no module 'no_such_package'"),
        ("no/such/file.py:net", "there is no file no/such/file.py"),
        (f"{MODULE}:nothing", "the module has no 'nothing'"),
        (f"{MODULE}:NUMBER", "is a int, neither a model nor a function"),
        (f"{MODULE}:not_a_model", "returned a int, not a torch.nn.Module"),
        (f"{MODULE}:broken", "failed: RuntimeError: no such layer\n  from .*sample_models.py:"),
    ],
)
def test_what_is_not_a_model(spec: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_model(spec)


def test_module_that_fails_to_import(tmp_path: Path) -> None:
    file = tmp_path / "bad_net.py"
    file.write_text("import no_such_package_at_all\n")
    with pytest.raises(InputError, match="importing .*bad_net.py failed: ModuleNotFoundError"):
        load_model(f"{file}:net")


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module."])
def test_weights_of_torch_save(tmp_path: Path, wrap: str) -> None:
    wanted = Net().state_dict()
    state = (
        {f"module.{key}": value for key, value in wanted.items()} if wrap == "module." else wanted
    )
    path = tmp_path / "w.pt"
    torch.save({"state_dict": state, "epoch": 3} if wrap == "state_dict" else state, path)
    loaded = load_model(f"{MODULE}:make", path).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in wanted.items())


def test_weights_in_safetensors_without_counters(tmp_path: Path) -> None:
    wanted = Net().state_dict()
    path = tmp_path / "w.safetensors"
    save_file({key: value for key, value in wanted.items() if "num_batches" not in key}, path)
    loaded = load_model(f"{MODULE}:make", path).state_dict()
    assert torch.equal(loaded["conv.weight"], wanted["conv.weight"])


def test_weights_of_another_model(tmp_path: Path) -> None:
    state = make().state_dict()
    state["head.weight"] = torch.zeros(7, 4)
    state["extra"] = state.pop("head.bias")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        load_model(f"{MODULE}:make", tmp_path / "w.pt")
    text = str(caught.value)
    assert "missing head.bias" in text
    assert "unknown extra" in text
    assert "head.weight is [7, 4], the model has [5, 4]" in text


def test_weights_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(InputError, match="there is no file"):
        load_model(f"{MODULE}:make", path)
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_model(f"{MODULE}:make", path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds a list, not a state dict"):
        load_model(f"{MODULE}:make", path)
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_model(f"{MODULE}:make", tmp_path / "w.safetensors")


def test_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    """Unpickling one would run code of the file."""
    torch.save(make(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_model(f"{MODULE}:make", tmp_path / "w.pt")
