"""ONNX files: float, int8 as QuantizeLinear and DequantizeLinear pairs, half precision."""
