"""Quantization in training: ranges that follow, batch norm, schedules, checkpoints."""
