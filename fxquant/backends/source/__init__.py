"""A graph as `model.py`: readable, editable, and good for the pipeline again; weights beside it."""
