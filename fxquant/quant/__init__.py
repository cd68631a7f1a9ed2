"""Quantization: arithmetic, specifications, observers, fake-quantize, configuration. Pure torch."""
