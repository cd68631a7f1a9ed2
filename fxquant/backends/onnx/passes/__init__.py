"""Rewrites on the way to ONNX."""
