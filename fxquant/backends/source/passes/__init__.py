"""The manual work of eager quantization, done on a traced graph: modules and stubs."""
