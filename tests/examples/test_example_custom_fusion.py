"""The example of a fusion runs, rewrites both spellings, and says why the third stays."""

from __future__ import annotations

import importlib

from fxquant.passes.fusion.registry import registered_fusions, unregister_fusion


def test_custom_fusion() -> None:
    if "quick-gelu" in registered_fusions():
        unregister_fusion("quick-gelu")
    example = importlib.reload(importlib.import_module("examples.custom_fusion"))
    try:
        fused, reason = example.main()
    finally:
        unregister_fusion("quick-gelu")
    assert fused.count("= silu(") == 2
    assert "= sigmoid(" not in fused
    assert "%sigmoid is read outside of the match too, by %add" in reason
