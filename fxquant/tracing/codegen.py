"""The code generator that gives a GraphModule the call of the user's model.

    def forward(self, *args, **kwargs):
        x, mask = self._graph._codegen.signature.flatten(args, kwargs)
        …
        return self._graph._codegen.signature.unflatten((logits,))

`torch.fx.Interpreter` asks the same object to process inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx.graph import CodeGen

from fxquant.tracing.signature import Signature

SIGNATURE = "self._graph._codegen.signature"


class SignatureCodeGen(CodeGen):
    """Binds a user's call to the placeholders and rebuilds the results."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.signature = signature

    def process_inputs(self, *args: Any) -> Any:
        """The placeholders' values for a call by position."""
        return self.signature.flatten(args, {})

    def process_outputs(self, outputs: Any) -> Any:
        """The graph's results in the structure that the model returns."""
        return self.signature.unflatten(outputs)

    def gen_fn_def(
        self,
        free_vars: list[str],
        maybe_return_annotation: str,
        *,
        expanded_def: bool = False,
    ) -> str:
        """The `def` line, and the line that binds the call to the placeholders."""
        names = [each.split(":")[0].split("=")[0].split("#")[0].strip() for each in free_vars]
        targets = "".join(f"{each}, " for each in names if each != "self")
        equals = f"{targets.rstrip()} = " if targets else ""
        name = getattr(self, "_func_name", "forward")
        head = f"def {name}(self, *args, **kwargs){maybe_return_annotation}:"
        return f"{head}\n    {equals}{SIGNATURE}.flatten(args, kwargs)"

    def generate_output(
        self,
        output_args: Any,
        *,
        descs: Sequence[str] | None = None,
        repr_fn: Callable[[object], str] | None = None,
    ) -> str:
        """The `return` line."""
        text = (repr_fn or repr)(output_args)
        return f"return {SIGNATURE}.unflatten({text})"
