"""LiteRT's integer arithmetic in exact torch operations; no graph, no file format.

The same int8 operator has up to three results, one per set of kernels of the runtime. They differ
in the last rounding, and `selected_kernels` says which set the dialect computes.
"""
