"""One loaded model in LiteRT, tensors by index; also the program of a process that holds one.

    request  ("run", {0: array})     ->  ("ok", None)
    request  ("get", 7)              ->  ("ok", array)

LiteRT aborts the whole process on some graphs, so verification runs it in a process of its own:
`python litert_session.py`, which speaks pickles over its pipes. This file therefore imports only
numpy and LiteRT, and nothing of fxquant.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
RESOLVERS = {
    "reference": "BUILTIN_REF",
    "optimized": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "xnnpack": "AUTO",
}


class Session:
    """A model that is ready to run."""

    def __init__(self, model: str | bytes, kernels: str, preserve: bool, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        source = {"model_path": model} if isinstance(model, str) else {"model_content": model}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that intermediates cost memory: they are asked for
            self._interpreter: Any = Interpreter(
                **source,
                num_threads=threads,
                experimental_op_resolver_type=getattr(OpResolverType, RESOLVERS[kernels]),
                experimental_preserve_all_tensors=preserve,
            )
        self._interpreter.allocate_tensors()
        details = self._interpreter.get_input_details()
        self._shapes = {each["index"]: tuple(each["shape"].tolist()) for each in details}

    def run(self, inputs: Mapping[int, Array]) -> None:
        """Set the inputs, resizing them where they have another shape, and run."""
        shapes = {index: value.shape for index, value in inputs.items()}
        changed = {index: shape for index, shape in shapes.items() if self._shapes[index] != shape}
        for index, shape in changed.items():
            self._interpreter.resize_tensor_input(index, shape, strict=True)
        if changed:
            self._interpreter.allocate_tensors()
            self._shapes |= changed
        for index, value in inputs.items():
            self._interpreter.set_tensor(index, np.ascontiguousarray(value))
        self._interpreter.invoke()

    def get(self, index: int) -> Array:
        """A copy of a tensor's present values."""
        values: Array = self._interpreter.get_tensor(index)
        return values


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the pipe closes; the first loads the model."""
    session: Session | None = None
    while True:
        try:
            what, argument = pickle.load(requests)
        except EOFError:
            return
        try:
            if session is None:
                session = Session(*argument)
                answer: tuple[str, Any] = ("ok", None)
            else:
                answer = ("ok", getattr(session, what)(argument))
        except Exception as error:  # the other side raises it again
            answer = ("error", str(error))
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    out = sys.stdout.buffer
    sys.stdout = sys.stderr
    serve(sys.stdin.buffer, out)
