"""Activations. Integers have own kernels, or a float island where that is faster and closer.

silu(x)          ->   mul(x, logistic(x))
hardsigmoid(x)   ->   mul(relu6(add(x, 3)), 1/6)
"""

from __future__ import annotations

import math

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.aten import aten

from .grids import float32, quantize_constant
from .registry import legalize
from .rewriter import NoIntegerForm, Rewriter
from .tables import by_table
from .values import Constant, Value

SIGMOIDS = {
    "int8": QType("int8", 1 / 256, -128),
    "uint8": QType("uint8", 1 / 256, 0),
    "int16": QType("int16", 1 / 32768, 0),
}
UNIT_GRIDS = {
    "int8": QType("int8", float32(1 / 255), -128),
    "uint8": QType("uint8", float32(1 / 255), 0),
}
"""Grids whose ends are exactly 0 and 1."""

LOG_SOFTMAXES = {
    "int8": QType("int8", 1 / 16, 127),
    "uint8": QType("uint8", 1 / 16, 255),
}
COARSE_SCALES = (2.0**-12, 2.0**-11)
"""16-bit inputs of these make LOGISTIC and TANH use a less exact routine."""

LEAST_SCALE = 2.0**-30
"""Below, their multiplier for 16-bit inputs has too few digits, and at last none."""

TANHS = {"int16": QType("int16", 1 / 32768, 0)}


def fixed(r: Rewriter, known: dict[str, QType]) -> QType | None:
    """The grid that a kernel insists on; that of the result where it does not."""
    return None if r.out is None else known.get(r.out.dtype, r.out)


def on_grid(r: Rewriter, x: Value) -> Value:
    """A result on the grid that is wanted, requantized where the kernel has its own."""
    return x if r.out is None else r.quantize(x, r.out)


@legalize(aten.relu.default, quantized=True)
def relu(r: Rewriter, x: Value) -> Value:
    """RELU."""
    return r.emit(tfl.relu, *r.operands(x), out=r.out)


@legalize(aten.relu6.default, quantized=True)
def relu6(r: Rewriter, x: Value) -> Value:
    """RELU6; RELU where the grid ends so far below 6 that the kernels cannot express it."""
    function = tfl.relu if r.out is not None and 6 / r.out.scale >= 2**31 else tfl.relu6
    return r.emit(function, x, out=r.out)


RANGES = {(0.0, None): "relu", (0.0, 6.0): "relu6", (-1.0, 1.0): "relu_n1_to_1"}


@legalize(aten.hardtanh.default, quantized=True)
def hardtanh(r: Rewriter, x: Value, least: float = -1.0, greatest: float = 1.0) -> Value:
    """RELU6 or RELU_N1_TO_1 where the limits are those, else MAXIMUM and MINIMUM."""
    return clamp(r, x, least, greatest)


@legalize(aten.clamp.default, quantized=True)
def clamp(
    r: Rewriter, x: Value, least: complex | None = None, greatest: complex | None = None
) -> Value:
    """As `hardtanh`; integers are brought onto the result's grid first: both read raw values."""
    if r.result_dtype.is_floating_point:
        limits = (
            None if least is None else float(least.real),
            None if greatest is None else float(greatest.real),
        )
        known = RANGES.get(limits)  # type: ignore[arg-type]
        if known is not None and not (
            r.out is not None and r.out.dtype == "int16" and known == "relu_n1_to_1"
        ):
            return r.emit(getattr(tfl, known), *r.operands(x), out=r.out)
    if r.out is None:
        (x,) = r.operands(x)
    else:
        x = r.quantize(x, r.out)
        if _saturates(r.out, least, greatest):
            return x
    if least == 0 and r.out is None and r.result_dtype.is_floating_point:
        x = r.emit(tfl.relu, x)  # whoever computes x can take it in
    elif least is not None:
        x = r.emit(tfl.maximum, x, _limit(r, least))
    if greatest is not None:
        x = r.emit(tfl.minimum, x, _limit(r, greatest))
    return x


def _saturates(kind: QType, least: complex | None, greatest: complex | None) -> bool:
    """Whether no integer of a grid stands for a number outside of the limits."""
    return _lies_between(
        kind,
        -math.inf if least is None else least.real,
        math.inf if greatest is None else greatest.real,
    )


def _limit(r: Rewriter, number: complex) -> Constant:
    if r.out is None:
        return r.scalar(number, r.result_dtype)
    return quantize_constant(r.scalar(number), r.out)


@legalize(aten.clamp_min.default, quantized=True)
def clamp_min(r: Rewriter, x: Value, least: complex) -> Value:
    """MAXIMUM with a constant; RELU at 0."""
    return clamp(r, x, least, None)


@legalize(aten.clamp_max.default, quantized=True)
def clamp_max(r: Rewriter, x: Value, greatest: complex) -> Value:
    """MINIMUM with a constant."""
    return clamp(r, x, None, greatest)


@legalize(aten.clamp.Tensor)
def clamp_tensor(
    r: Rewriter, x: Value, least: Value | None = None, greatest: Value | None = None
) -> Value:
    """MAXIMUM and MINIMUM."""
    (result,) = r.operands(x)
    if least is not None:
        result = r.emit(tfl.maximum, result, *r.operands(least))
    if greatest is not None:
        result = r.emit(tfl.minimum, result, *r.operands(greatest))
    return result


@legalize(aten.leaky_relu.default, quantized=True)
def leaky_relu(r: Rewriter, x: Value, slope: float = 0.01) -> Value:
    """LEAKY_RELU, its slope an option."""
    return r.emit(tfl.leaky_relu, x, alpha=float(slope), out=r.out)


@legalize(aten.prelu.default, aten._prelu_kernel.default, quantized=True)
def prelu(r: Rewriter, x: Value, weight: Value) -> Value:
    """PRELU on channels-last data, so that one slope a channel broadcasts."""
    rank = len(r.shape(x))
    if r.out is not None and not isinstance(weight, Constant):
        raise NoIntegerForm("its slopes are not constant")
    slope = (
        r.reshape(weight, (r.elements(weight),))
        if r.elements(weight) > 1
        else r.reshape(weight, (1,) * max(rank - 1, 1))
    )
    if r.out is not None and isinstance(slope, Constant):
        slope = r.quantized_constant(slope)  # int8 beside int16, too
    if rank < 3 or r.elements(weight) == 1:
        return r.emit(tfl.prelu, x, slope, out=r.out)
    slope = r.reshape(slope, (1,) * (rank - 2) + (r.elements(weight),))
    return r.nchw(r.emit(tfl.prelu, r.nhwc(x), slope, out=r.out))


@legalize(aten.elu.default, quantized=True)
def elu(
    r: Rewriter, x: Value, alpha: complex = 1, scale: complex = 1, input_scale: complex = 1
) -> Value:
    """ELU for alpha 1; others as scale * (relu(x) + alpha * (e^min(x, 0) - 1))."""
    plain = alpha == scale == input_scale == 1
    if r.out is not None and not (plain and r.out.dtype == "int8"):
        if not r.integer_only:
            raise NoIntegerForm("ELU has a kernel only for int8 and alpha 1")
        return by_table(r, x, lambda reals: aten.elu(reals, alpha, scale, input_scale))
    if plain:
        return r.emit(tfl.elu, x, out=r.out)
    positive = r.emit(tfl.relu, x)
    # ELU of a negative number is e^x - 1 without its cancellation.
    low = r.emit(tfl.minimum, x, r.scalar(0.0))
    if input_scale != 1:
        low = r.emit(tfl.mul, low, r.scalar(input_scale))
    negative = r.emit(tfl.mul, r.emit(tfl.elu, low), r.scalar(alpha * scale))
    if scale != 1:
        positive = r.emit(tfl.mul, positive, r.scalar(scale))
    return r.emit(tfl.add, positive, negative)


@legalize(aten.celu.default)
def celu(r: Rewriter, x: Value, alpha: complex = 1) -> Value:
    """relu(x) + alpha * (e^(x / alpha) - 1) below zero."""
    return elu(r, x, alpha, 1, 1 / alpha)


@legalize(aten.selu.default)
def selu(r: Rewriter, x: Value) -> Value:
    """ELU with the two constants of its authors."""
    return elu(r, x, 1.6732632423543772, 1.0507009873554805, 1)


@legalize(aten.gelu.default, quantized=True)
def gelu(r: Rewriter, x: Value, *, approximate: str = "none") -> Value:
    """GELU; the flag says whether torch's tanh form is meant."""
    return r.emit(tfl.gelu, x, approximate=approximate == "tanh", out=r.out)


@legalize(aten.sigmoid.default, quantized=True)
def sigmoid(r: Rewriter, x: Value) -> Value:
    """LOGISTIC; integers at scale 1/256, the only one its kernel has."""
    return on_grid(r, _logistic(r, *r.operands(x)))


def _logistic(r: Rewriter, x: Value) -> Value:
    return r.emit(tfl.logistic, _by_table(r, x), out=fixed(r, SIGMOIDS))


def _by_table(r: Rewriter, x: Value) -> Value:
    """16-bit values at scales for which the kernels of LOGISTIC and TANH read their table."""
    kind = r.qtype(x)
    if kind is None or kind.dtype != "int16":
        return x
    scale = max(kind.scale, LEAST_SCALE)
    scale = float32(scale * 1.001) if scale in COARSE_SCALES else scale
    return r.quantize(x, QType(kind.dtype, scale, kind.zero_point))


@legalize(aten.tanh.default, quantized=True)
def tanh(r: Rewriter, x: Value) -> Value:
    """TANH."""
    (x,) = r.operands(x)
    return on_grid(r, r.emit(tfl.tanh, _by_table(r, x), out=fixed(r, TANHS)))


@legalize(aten.silu.default, quantized=True)
def silu(r: Rewriter, x: Value) -> Value:
    """x * LOGISTIC(x)."""
    return r.emit(tfl.mul, x, _logistic(r, x), out=r.out)


@legalize(aten.hardswish.default, quantized=True)
def hardswish(r: Rewriter, x: Value) -> Value:
    """HARD_SWISH; integers in a float island, eight times as fast as the int8 kernel."""
    kind = r.qtype(x)
    if r.out is not None and not r.integer_only:
        raise NoIntegerForm
    if kind is None or r.out is None or _hard_swish_kernel(kind, r.out):
        return r.emit(tfl.hard_swish, x, out=r.out)
    return r.emit(tfl.mul, x, _gate(r, x, kind), out=r.out)


def _hard_swish_kernel(kind: QType, out: QType) -> bool:
    return kind.dtype in ("int8", "uint8") and kind.scale / 128 / out.scale <= 1


def _gate(r: Rewriter, x: Value, kind: QType) -> Value:
    """relu6(x + 3) / 6 on the grid of [0, 1]."""
    if kind.dtype != "int16":
        return _saturated_gate(r, x, kind, UNIT_GRIDS[kind.dtype])
    six, one = (QType("int16", float32(top / 32767), 0) for top in (6.0, 1.0))
    shifted = r.emit(tfl.add, *r.operands(x, 3.0), fused_activation_function="RELU6", out=six)
    return r.emit(tfl.mul, *r.operands(shifted, 1 / 6), out=one)


@legalize(aten.hardsigmoid.default, quantized=True)
def hardsigmoid(r: Rewriter, x: Value) -> Value:
    """relu6(x + 3) / 6; integers as x / 6 + 1/2 on the grid of [0, 1], whose ends saturate."""
    if r.out is None:
        shifted = r.emit(tfl.relu6, r.emit(tfl.add, x, r.scalar(3.0)))
        return r.emit(tfl.mul, shifted, r.scalar(1 / 6))
    kind = r.qtype(x)
    if kind is None:
        raise NoIntegerForm
    if kind.dtype != "int16" and _lies_between(r.out, 0.0, 1.0):
        return _saturated_gate(r, x, kind, r.out)
    return on_grid(r, _gate(r, x, kind))


def _saturated_gate(r: Rewriter, x: Value, kind: QType, out: QType) -> Value:
    """x / 6 + 1/2, clamped by the ends of its grid."""
    sixth = QType(kind.dtype, float32(kind.scale / 6), kind.zero_point)
    scaled = r.emit(tfl.mul, *r.operands(x, 1 / 6), out=sixth)
    return r.emit(tfl.add, *r.operands(scaled, 0.5), out=out)


def _lies_between(kind: QType, least: float, greatest: float) -> bool:
    """Whether the ends of a grid are no further out, so that saturation is the clamp."""
    limits = torch.iinfo(kind.torch_dtype)
    low, high = ((end - kind.zero_point) * kind.scale for end in (limits.min, limits.max))
    return low >= least - kind.scale / 2 and high <= greatest + kind.scale / 2


@legalize(aten.softplus.default)
def softplus(r: Rewriter, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    """max(x, 0) + log(1 + e^-|bx|) / b, which cannot overflow; x itself above the threshold."""
    scaled = x if beta == 1 else r.emit(tfl.mul, x, r.scalar(float(beta)))
    decay = r.emit(tfl.exp, r.emit(tfl.neg, r.emit(tfl.abs, scaled)))
    tail = _log1p_of_unit(r, decay)
    if beta != 1:
        tail = r.emit(tfl.mul, tail, r.scalar(1 / beta))
    result = r.emit(tfl.add, r.emit(tfl.relu, x), tail)
    if threshold >= 17:  # there the tail is below half a step of float32 anyway
        return result
    linear = r.emit(tfl.greater, scaled, r.scalar(float(threshold)))
    return r.emit(tfl.select_v2, linear, x, result)


def _log1p_of_unit(r: Rewriter, x: Value) -> Value:
    from .elementwise import log1p

    return log1p(r, x)


@legalize(aten.log_sigmoid.default, aten.log_sigmoid_forward.default)
def log_sigmoid(r: Rewriter, x: Value) -> Value:
    """-softplus(-x)."""
    return r.emit(tfl.neg, softplus(r, r.emit(tfl.neg, x)))


@legalize(aten.mish.default)
def mish(r: Rewriter, x: Value) -> Value:
    """x * tanh(softplus(x))."""
    return r.emit(tfl.mul, x, r.emit(tfl.tanh, softplus(r, x)))


@legalize(aten.glu.default, quantized=True)
def glu(r: Rewriter, x: Value, dim: int = -1) -> Value:
    """The first half times LOGISTIC of the second."""
    half = r.shape(x)[dim] // 2
    gate = _logistic(r, r.slice(x, dim, half, half))
    return r.emit(tfl.mul, r.slice(x, dim, 0, half), gate, out=r.out)


@legalize(aten.threshold.default)
def threshold(r: Rewriter, x: Value, limit: complex, value: complex) -> Value:
    """x above the limit, else the value."""
    above = r.emit(tfl.greater, x, r.scalar(limit))
    return r.emit(tfl.select_v2, above, x, r.broadcast(r.scalar(value), r.shape(x)))


@legalize(aten.hardshrink.default)
def hardshrink(r: Rewriter, x: Value, limit: complex = 0.5) -> Value:
    """x outside [-limit, limit], else 0."""
    outside = r.emit(tfl.greater, r.emit(tfl.abs, x), r.scalar(limit))
    return r.emit(tfl.select_v2, outside, x, r.broadcast(r.scalar(0.0), r.shape(x)))


@legalize(aten.softshrink.default)
def softshrink(r: Rewriter, x: Value, limit: float = 0.5) -> Value:
    """x minus x clamped to [-limit, limit]."""
    inside = r.emit(tfl.minimum, r.emit(tfl.maximum, x, r.scalar(-limit)), r.scalar(limit))
    return r.emit(tfl.sub, x, inside)


@legalize(aten.softmax.int, aten._softmax.default, quantized=True)
def softmax(r: Rewriter, x: Value, dim: int, dtype: object = None) -> Value:
    """SOFTMAX over the last axis; integers in a float island unless only integers are wanted."""
    if r.out is not None:
        # BUILTIN_REF aborts on long rows of 8 bits.
        aborts = r.out.dtype != "int16" and r.shape(x)[dim] >= 512
        if aborts or not r.integer_only:
            raise NoIntegerForm("SOFTMAX of 512 or more 8-bit values can abort BUILTIN_REF")
    if isinstance(dtype, torch.dtype) and r.out is None:
        x = r.cast(x, dtype)
    if not r.shape(x):
        return r.scalar(1.0)
    last, back = r.move_last(x, dim)
    return back(on_grid(r, r.emit(tfl.softmax, last, beta=1.0, out=fixed(r, SIGMOIDS))))


@legalize(aten.log_softmax.int, aten._log_softmax.default, quantized=True)
def log_softmax(r: Rewriter, x: Value, dim: int, dtype: object = None) -> Value:
    """LOG_SOFTMAX over the last axis; integers in a float island unless they are asked for."""
    if r.out is not None and r.out.dtype == "int16":
        raise NoIntegerForm("LOG_SOFTMAX has no kernel for int16")
    if r.out is not None and not r.integer_only:
        raise NoIntegerForm("LOG_SOFTMAX has one scale for all results, of 1/16")
    last, back = r.move_last(x, dim)
    return back(on_grid(r, r.emit(tfl.log_softmax, last, out=fixed(r, LOG_SOFTMAXES))))
