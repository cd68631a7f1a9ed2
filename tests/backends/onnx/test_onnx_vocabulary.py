"""Every row of docs/core_dialect.md in ONNX Runtime, but for those that are refused by name."""

from __future__ import annotations

import pytest

from fxquant.errors import UnsupportedOp
from tests.backends.onnx.runtime_checks import check
from tests.passes.test_functionalize_vocabulary import function_of, rows

REFUSED = {
    "torch.atan2(x, y)",
    "torch.fmax(x, y)",
    "torch.hypot(x, y)",
    "z & 3",
    "z << 1",
    "torch.bitwise_not(z)",
    "torch.cdist(m, m)",
    "F.max_pool2d(x, 2, return_indices=True)",
    "F.adaptive_max_pool2d(x, 2, return_indices=True)",
    'F.interpolate(x, size=(9, 9), mode="bilinear", antialias=True)',
    "x.unfold(2, 2, 1)",
    "x.diagonal(0, 2, 3)",
    "x.diagonal(0, 2, 3).zero_(); x",
    "x.median()",
    "x.median(1)",
    "torch.polygamma(1, e)",
    "torch.lgamma(e)",
    "torch.erfinv(e*0.5)",
    "torch.trace(m)",
}
SPELLINGS = [spelling for spelling, _ in rows()]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("spelling", [each for each in SPELLINGS if each not in REFUSED])
def test_a_row_in_onnx_runtime(spelling: str) -> None:
    function, tensors = function_of(spelling)
    check(function, *tensors, tolerance=2e-5)


@pytest.mark.parametrize("spelling", sorted(REFUSED))
def test_what_is_refused_is_named(spelling: str) -> None:
    function, tensors = function_of(spelling)
    with pytest.raises(UnsupportedOp, match="onnx (has no|cannot express)"):
        check(function, *tensors)


def test_refused_rows_are_on_the_page() -> None:
    assert set(SPELLINGS) >= REFUSED
