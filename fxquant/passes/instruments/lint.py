"""The structure and the validity table, checked after each pass; the error names the culprit."""

from __future__ import annotations

from fxquant.errors import PassError
from fxquant.ir.validity import check_graph
from fxquant.passes.base import Pass, PassResult
from fxquant.passes.instruments.base import Instrument


class Lint(Instrument):
    """Checks the structure and the validity table after each pass, and names the culprit."""

    def after_pass(self, item: Pass, result: PassResult) -> None:
        try:
            check_graph(result.graph_module)
        except Exception as error:
            raise PassError(f"the pass {item} left an invalid graph: {error}") from error
