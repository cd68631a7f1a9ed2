"""What an instrument is: hooks around pipelines and passes, which do nothing until filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.fx import GraphModule

from fxquant.passes.base import Pass, PassResult

if TYPE_CHECKING:
    from fxquant.passes.pipeline import Pipeline


class Instrument:
    """Base of instruments: every hook does nothing until a subclass fills it."""

    def before_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        """Called once, before the first pass."""

    def after_pipeline(self, pipeline: Pipeline, graph_module: GraphModule) -> None:
        """Called once, after the last pass."""

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        """Called before each pass with the graph that it will get."""

    def after_pass(self, item: Pass, result: PassResult) -> None:
        """Called after each pass with what it returned."""

    def pass_failed(self, item: Pass, graph_module: GraphModule, error: Exception) -> None:
        """Called when a pass, or an instrument that judged it, raised.

        Args:
            item: the pass.
            graph_module: the graph that the pass got; it may be half rewritten.
            error: what was raised.
        """
