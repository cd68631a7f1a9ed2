"""Choosing how each value is stored, so that the fewest bytes are transposed.

`layouts` says what a layout is, `axes` and `rules` how those of an operator's operands and results
hang together. `problem` makes a labelling problem of a graph, `families` finds the labels worth
trying, `moves` solves it by minimum cuts, and `rewrite` brings the graph into the
layouts found. `assign_layout` is the pass.
"""
