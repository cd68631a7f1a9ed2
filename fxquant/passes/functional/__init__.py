"""How `functionalize` works, one idea a file.

interpreter    walks the torch-dialect graph, node by node, on fake tensors
interception   enters Python functions until a C builtin of torch is reached
builtins       builtins that are not simply an operator of the same name: `x[...]`, `.to()`, …
resolution     the ATen overload that a builtin call means
schema         an overload's arguments in normal form
rules/         one spelling for each operation: transpose -> permute, view -> reshape, …
aliases        which tensors share memory, and what a write to one does to the others
engine         makes the core nodes; ties the parts above together
modules        leaf modules, and what is left of them in the core dialect
tail           the long tail: one call traced by `make_fx`
"""
