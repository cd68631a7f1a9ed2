"""Where a quantized model loses accuracy: the error of every layer, alone and accumulated."""

from __future__ import annotations
