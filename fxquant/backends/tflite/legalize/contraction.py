"""einsum as permutes, reshapes and one BATCH_MATMUL for each pair of operands.

bhqd,bhkd->bhqk    batch b h, rows q, columns k, summed d
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

from fxquant.backends.tflite import dialect as tfl

from .rewriter import Rewriter, Unsupported
from .values import Value


def contract(r: Rewriter, equation: str, operands: list[Value]) -> Value:
    """The value of an einsum, its operands contracted from left to right."""
    terms, result = _parse(equation.replace(" ", ""), [len(r.shape(x)) for x in operands])
    value, letters = _reduced(r, operands[0], terms[0], "".join(terms[1:]) + result)
    for number, (other, term) in enumerate(zip(operands[1:], terms[1:], strict=True), start=1):
        keep = "".join(terms[number + 1 :]) + result
        other, term = _reduced(r, other, term, letters + keep)
        value, letters = _pair(r, value, letters, other, term, keep)
    value, letters = _reduced(r, value, letters, result)
    return r.transpose(value, [letters.index(letter) for letter in result])


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    dots = max(
        (
            rank - len(term.replace("...", ""))
            for term, rank in zip(terms, ranks, strict=True)
            if "..." in term
        ),
        default=0,
    )
    ellipsis = "".join(free[:dots])
    filled = []
    for term, rank in zip(terms, ranks, strict=True):
        own = rank - len(term.replace("...", "")) if "..." in term else 0
        filled.append(term.replace("...", ellipsis[dots - own :]))
    if not arrow:
        every = "".join(filled)
        once = sorted(c for c in set(every) if every.count(c) == 1 and c not in ellipsis)
        return filled, ellipsis + "".join(once)
    return filled, right.replace("...", ellipsis)


def _reduced(r: Rewriter, x: Value, term: str, needed: str) -> tuple[Value, str]:
    """Sum the letters that nothing else needs."""
    if len(set(term)) != len(term):
        raise Unsupported("einsum with a letter twice in one operand (a diagonal)")
    axes = tuple(n for n, letter in enumerate(term) if letter not in needed)
    if not axes:
        return x, term
    summed = r.emit(tfl.sum, x, axis=axes, keep_dims=False)
    return summed, "".join(letter for letter in term if letter in needed)


def _pair(r: Rewriter, x: Value, left: str, y: Value, right: str, keep: str) -> tuple[Value, str]:
    sizes = {
        **dict(zip(right, r.shape(y), strict=True)),
        **dict(zip(left, r.shape(x), strict=True)),
    }
    shared = [c for c in left if c in right]
    batch = [c for c in shared if c in keep]
    summed = [c for c in shared if c not in keep]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]

    def arranged(value: Value, term: str, first: list[str], second: list[str]) -> Value:
        order = [term.index(c) for c in (*batch, *first, *second)]
        shape = [sizes[c] for c in batch] or [1]
        extents = (math.prod(sizes[c] for c in first), math.prod(sizes[c] for c in second))
        return r.reshape(r.transpose(value, order), (math.prod(shape), *extents))

    product = r.emit(
        tfl.batch_matmul, arranged(x, left, rows, summed), arranged(y, right, summed, columns)
    )
    letters = [*batch, *rows, *columns]
    return r.reshape(product, [sizes[c] for c in letters]), "".join(letters)
