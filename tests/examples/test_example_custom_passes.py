"""The example of a custom pass list runs, and its pass does what it says."""

from __future__ import annotations

from examples import custom_passes
from fxquant.passes import registry


def test_custom_passes() -> None:
    registry._passes["drop-idle-clamp"] = custom_passes.DropIdleClamp
    try:
        text = custom_passes.main()
    finally:
        registry._passes.pop("drop-idle-clamp")
    assert "logistic" in text
    assert "maximum" not in text
    assert "minimum" not in text
