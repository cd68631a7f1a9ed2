"""The backend `source`: any stage as a file `model.py`, its weights beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch.fx import GraphModule

from fxquant.backends.base import Backend, Lowered, LowerOptions, Segment
from fxquant.backends.lowering.output_file import write_files
from fxquant.backends.registry import get_backend
from fxquant.backends.source.file import source_file
from fxquant.backends.source.loading import SUFFIX
from fxquant.backends.source.options import SourceOptions
from fxquant.backends.source.passes.classic_stubs import ClassicStubs
from fxquant.backends.source.passes.functions_to_modules import FunctionsToModules
from fxquant.backends.source.relocate import relocate
from fxquant.backends.source.stage import comment_of, stage_of
from fxquant.backends.source.verify import SourceReport, verify
from fxquant.backends.source.weights import weights_file
from fxquant.errors import OutputError
from fxquant.passes.base import Pass
from fxquant.passes.pipeline import Pipeline

TARGET = "tflite"  # whose constraints decide what is quantized, where nothing else is said


class SourceBackend(Backend):
    """A readable Python file of any stage, as it is."""

    name: ClassVar[str] = "source"
    suffix: ClassVar[str] = ".py"
    options_class: ClassVar[type[Any] | None] = SourceOptions
    any_stage: ClassVar[bool] = True

    def constraints(self) -> Any:
        """Those of the device that the model is made ready for."""
        return get_backend(TARGET).constraints()

    def pipeline(self, options: LowerOptions) -> Pipeline:
        """Nothing for the graph as it is; for `stubbed` what makes it ready to be quantized."""
        chosen = self.own_options(options)
        assert isinstance(chosen, SourceOptions)
        self.refuse_borders(options)
        passes: tuple[Pass, ...] = ()
        if chosen.stage == "stubbed":
            passes = (ClassicStubs(chosen.target), FunctionsToModules())
        return Pipeline(passes, title="source")

    def write(self, graph_module: GraphModule, options: LowerOptions) -> Sequence[Segment]:
        """The code, and the weights."""
        placed = relocate(graph_module)
        code = source_file(placed, comment_of, stage_of(graph_module))
        return [code.text.encode(), weights_file(placed)]

    def join(self, segments: Sequence[Segment]) -> bytes:
        """Two files are not one string."""
        raise OutputError(
            "the code and its weights are two files, so one string cannot hold them",
            fix="write them with save(); segments()[0] is the code",
        )

    def save(self, segments: Sequence[Segment], path: Path) -> None:
        """Write `path` and, beside it, the weights: both or none.

        Raises:
            OutputError: one of them cannot be written, or the path is not that of a .py file.
        """
        if path.suffix != self.suffix:
            raise OutputError(
                f"cannot write code to {path}: its name does not end in {self.suffix}",
                fix=f"write to {path.with_suffix(self.suffix)}",
            )
        code, weights = segments
        write_files([(path.with_suffix(SUFFIX), [weights]), (path, [code])])

    def can_verify(self) -> bool:
        """Python runs the file."""
        return True

    def verify(self, lowered: Lowered, data: Iterable[Any], **options: Any) -> SourceReport:
        """Run the file and compare its results with the graph's, bit for bit."""
        with tempfile.TemporaryDirectory() as folder:
            return verify(lowered, data, lowered.save(Path(folder) / "model.py"))
