"""Running a .tflite file in LiteRT, inputs and outputs by the names that the user gave them.

    with LiteRT("m.tflite", kernels="reference") as runtime:
        runtime.run({"x": array})        ->  {"output": array}
        runtime.tensor("conv1/conv_2d")  ->  array          # preserve=True keeps intermediates

Kernels: `reference` (plain loops), `optimized` (the default kernels), `xnnpack` (the default
delegate over them, what a user of the interpreter gets). With `isolate=True` the file runs in a
process of its own: on some graphs LiteRT aborts the process that it is in.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from fxquant.backends.tflite import litert_session
from fxquant.backends.tflite.contents import Bytes, FileModel
from fxquant.backends.tflite.litert_session import Array, Session
from fxquant.backends.tflite.reader import read_bytes, read_file
from fxquant.errors import FxquantError, InputError, MissingDependency, VerifyError

Kernels = Literal["reference", "optimized", "xnnpack"]
Source = str | os.PathLike[str] | Bytes | Sequence[Bytes]


class RuntimeFailure(VerifyError, RuntimeError):
    """LiteRT refuses a file, fails while it runs, or takes its process down."""


class _Runner(Protocol):
    def run(self, inputs: Mapping[int, Array]) -> None: ...
    def get(self, index: int) -> Array: ...


class LiteRT:
    """A file that is ready to run.

    Args:
        source: a path, the file's bytes, or its segments.
        kernels: which of the runtime's kernels compute.
        preserve: keep intermediate values for `tensor`.
        isolate: run in a process of its own.
        threads: threads that the kernels may use.

    Raises:
        MissingDependency: LiteRT is not installed.
        RuntimeFailure: LiteRT refuses the file.
    """

    def __init__(
        self,
        source: Source,
        *,
        kernels: Kernels = "xnnpack",
        preserve: bool = False,
        isolate: bool = False,
        threads: int = 1,
    ) -> None:
        require_litert()
        if kernels not in litert_session.RESOLVERS:
            known = ", ".join(litert_session.RESOLVERS)
            raise InputError(f"there are no kernels {kernels!r}", fix=f"one of {known}")
        self._cleanup = contextlib.ExitStack()
        model = _joined(source)
        self.model: FileModel = read_file(model) if isinstance(model, str) else read_bytes(model)
        settings = (kernels, preserve, threads)
        with contextlib.ExitStack() as stack:
            self._runner = _start(model, settings, isolate, stack)
            self._cleanup = stack.pop_all()
        self._index = {tensor.name: n for n, tensor in enumerate(self.model.main.tensors)}

    @property
    def inputs(self) -> dict[str, int]:
        """Tensor indices of the inputs by name."""
        return self._border(0)

    @property
    def outputs(self) -> dict[str, int]:
        """Tensor indices of the outputs by name."""
        return self._border(1)

    def run(self, inputs: Mapping[str, Array] | Sequence[Array]) -> dict[str, Array]:
        """Run the file: inputs by name, or in the file's order.

        Raises:
            InputError: an input is missing or unknown, or has another dtype or shape.
            RuntimeFailure: the runtime fails.
        """
        known = self.inputs
        named = inputs if isinstance(inputs, Mapping) else _in_order(list(known), inputs)
        if set(named) != set(known):
            raise InputError(f"the file's inputs are {list(known)}, not {list(named)}")
        for name, value in named.items():
            self._check(name, known[name], value)
        with _reported():
            self._runner.run({known[name]: value for name, value in named.items()})
        return {name: self.value(index) for name, index in self.outputs.items()}

    def value(self, index: int) -> Array:
        """The values of a tensor, by its index in the file."""
        with _reported():
            return self._runner.get(index)

    def tensor(self, name: str) -> Array:
        """The values of a tensor, by its name in the file."""
        if name not in self._index:
            raise InputError(f"the file has no tensor {name!r}")
        return self.value(self._index[name])

    def close(self) -> None:
        """End the process of an isolated file."""
        self._cleanup.close()

    def __enter__(self) -> LiteRT:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _border(self, side: int) -> dict[str, int]:
        main = self.model.main
        for signature in self.model.signatures:
            if signature.subgraph == 0:
                return dict((signature.inputs, signature.outputs)[side])
        indices = (main.inputs, main.outputs)[side]
        return {main.tensors[index].name: index for index in indices}

    def _check(self, name: str, index: int, value: Array) -> None:
        tensor = self.model.main.tensors[index]
        if str(value.dtype) != tensor.dtype:
            raise InputError(f"input {name} is {tensor.dtype}, not {value.dtype}")
        sizes = tensor.signature or tensor.shape
        fits = len(sizes) == value.ndim and all(
            size in (-1, given) for size, given in zip(sizes, value.shape, strict=True)
        )
        if not fits:
            raise InputError(f"input {name} has shape {list(sizes)}, not {list(value.shape)}")


def require_litert() -> None:
    """Refuse to go on without LiteRT.

    Raises:
        MissingDependency: it is not installed.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise MissingDependency(
            "running a .tflite file needs the package ai-edge-litert",
            fix="pip install 'fxquant[litert]'",
        )


def _joined(source: Source) -> str | bytes:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return bytes(source) if isinstance(source, bytes | memoryview) else b"".join(source)


def _in_order(names: list[str], values: Sequence[Array]) -> dict[str, Array]:
    if len(names) != len(values):
        raise InputError(f"the file has {len(names)} inputs {names}, not {len(values)}")
    return dict(zip(names, values, strict=True))


@contextlib.contextmanager
def _reported() -> Any:
    """Errors of the runtime, which are RuntimeError or ValueError with its own words, as ours."""
    try:
        yield
    except FxquantError:
        raise
    except (RuntimeError, ValueError) as error:
        raise RuntimeFailure(f"LiteRT: {error}") from error


def _start(
    model: str | bytes,
    settings: tuple[Kernels, bool, int],
    isolate: bool,
    stack: contextlib.ExitStack,
) -> _Runner:
    if not isolate:
        with _reported():
            return Session(model, *settings)
    path = model if isinstance(model, str) else stack.enter_context(_temporary_file(model))
    return stack.enter_context(_Process((path, *settings)))


@contextlib.contextmanager
def _temporary_file(data: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="fxquant-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(data)
        yield str(path)


class _Process:
    """A Session in another process; its end is an exception here, with the last words it said."""

    def __init__(self, arguments: tuple[str, Kernels, bool, int]) -> None:
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-P", litert_session.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )
        try:
            self._ask("load", arguments)
        except BaseException:
            self.__exit__()
            raise

    def run(self, inputs: Mapping[int, Array]) -> None:
        """Set the inputs and run."""
        self._ask("run", dict(inputs))

    def get(self, index: int) -> Array:
        """A copy of a tensor's present values."""
        values: Array = self._ask("get", index)
        return values

    def _ask(self, what: str, argument: object) -> Any:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        try:
            pickle.dump((what, argument), requests, protocol=pickle.HIGHEST_PROTOCOL)
            requests.flush()
            state, answer = pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise RuntimeFailure(self._last_words()) from error
        if state == "error":
            raise RuntimeFailure(f"LiteRT: {answer}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        said = _end_of(self._messages)
        return f"LiteRT took its process down ({how})" + (f": {said}" if said else "")

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._messages.close()


def _end_of(messages: IO[bytes]) -> str:
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-2:] if "INFO:" not in line)
