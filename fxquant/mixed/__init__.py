"""Which operators keep float or 16 bits, by what quantization of each does to the output."""
