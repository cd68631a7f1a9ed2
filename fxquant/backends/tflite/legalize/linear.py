"""Dense layers and matrix products: FULLY_CONNECTED and BATCH_MATMUL.

linear(x[2,5,8], w[4,8], b)   ->   fully_connected {keep_num_dims}
matmul(x[2,3,4], y[2,4,5])    ->   batch_matmul
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxquant.backends.tflite import dialect as tfl
from fxquant.ir.aten import aten

from .convolution import layer_bias
from .registry import legalize
from .rewriter import NoIntegerForm, Rewriter
from .values import Constant, Value


@legalize(aten.linear.default, quantized=True)
def linear(r: Rewriter, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """FULLY_CONNECTED; the leading dimensions are kept."""
    if len(r.shape(weight)) == 1:
        return r.reshape(linear(r, x, r.reshape(weight, (1, -1)), bias), r.result_shape)
    shape = r.shape(x)
    if len(shape) == 1:
        x = r.reshape(x, (1, *shape))
    if r.out is not None and r.type(weight).quantization is None:
        raise NoIntegerForm("its weights are not quantized")
    offset = None if bias is None else _bias(r, bias, x, weight)
    return r.reshape(_dense(r, x, weight, offset), (*shape[:-1], r.shape(weight)[0]))


def _dense(r: Rewriter, x: Value, weight: Value, bias: Value | None) -> Value:
    """FULLY_CONNECTED; of float values and integer weights in the form that all kernels compute
    alike."""
    return r.emit(
        tfl.fully_connected,
        x,
        weight,
        bias,
        keep_num_dims=len(r.shape(x)) > 2,
        asymmetric_quantize_inputs=r.is_quantized(weight) and not r.is_quantized(x),
        out=r.out,
    )


def _bias(r: Rewriter, bias: Value, x: Value, weight: Value) -> Value:
    if r.elements(bias) != r.shape(weight)[0]:
        bias = r.broadcast(bias, (r.shape(weight)[0],))
    return layer_bias(r, bias, x, weight)


@legalize(aten.addmm.default)
def addmm(
    r: Rewriter, bias: Value, x: Value, y: Value, *, beta: complex = 1, alpha: complex = 1
) -> Value:
    """FULLY_CONNECTED where the second factor is a constant and the bias a row."""
    if isinstance(y, Constant) and beta == alpha == 1 and len(r.shape(bias)) == 1:
        return r.emit(
            tfl.fully_connected, x, y.permute((1, 0)), _bias(r, bias, x, y.permute((1, 0)))
        )
    product = _scaled(r, matmul(r, x, y), alpha)
    return r.emit(tfl.add, product, _scaled(r, bias, beta))


def _scaled(r: Rewriter, x: Value, factor: complex) -> Value:
    return x if factor == 1 else r.emit(tfl.mul, x, r.scalar(factor))


@legalize(aten.baddbmm.default)
def baddbmm(
    r: Rewriter, bias: Value, x: Value, y: Value, *, beta: complex = 1, alpha: complex = 1
) -> Value:
    """BATCH_MATMUL, then ADD."""
    return r.emit(tfl.add, _scaled(r, matmul(r, x, y), alpha), _scaled(r, bias, beta))


@legalize(aten.addbmm.default)
def addbmm(
    r: Rewriter, bias: Value, x: Value, y: Value, *, beta: complex = 1, alpha: complex = 1
) -> Value:
    """BATCH_MATMUL, summed over the batch, then ADD."""
    total = r.emit(tfl.sum, matmul(r, x, y), axis=(0,), keep_dims=False)
    return r.emit(tfl.add, _scaled(r, total, alpha), _scaled(r, bias, beta))


@legalize(
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.mv.default,
    aten.dot.default,
    quantized=True,
)
def matmul(r: Rewriter, x: Value, y: Value) -> Value:
    """FULLY_CONNECTED with a constant matrix, else BATCH_MATMUL; vectors become matrices."""
    if r.out is not None and isinstance(y, Constant) and y.quantization is None:
        raise NoIntegerForm("its constant is not quantized")
    x_shape, y_shape = r.shape(x), r.shape(y)
    left = r.reshape(x, (1, *x_shape)) if len(x_shape) == 1 else x
    if len(y_shape) == 1:
        y = r.reshape(y, (*y_shape, 1))
    result = _product(r, left, y)
    shape = list(r.shape(result))
    if len(x_shape) == 1:
        del shape[-2]
    if len(y_shape) == 1:
        del shape[-1]
    return r.reshape(result, shape)


def _product(r: Rewriter, x: Value, y: Value) -> Value:
    if isinstance(y, Constant) and len(y.data.shape) == 2 and not isinstance(x, Constant):
        return _dense(r, x, y.permute((1, 0)), None)
    rank = max(len(r.shape(x)), len(r.shape(y)))
    if isinstance(y, Constant) and y.quantization is not None and y.quantization.axis is not None:
        raise NoIntegerForm("BATCH_MATMUL ignores scales per channel")
    x, y = r.with_rank(x, rank), r.with_rank(y, rank)
    x, y, shape = _flat_batches(r, x, y)
    x, adj_x = _adjoint(r, x)
    y, adj_y = _adjoint(r, y)
    result = r.emit(tfl.batch_matmul, x, y, adj_x=adj_x, adj_y=adj_y, out=r.out)
    return r.reshape(result, shape)


def _flat_batches(r: Rewriter, x: Value, y: Value) -> tuple[Value, Value, tuple[int, ...]]:
    """More than five dimensions are more than the kernel has: equal batches become one."""
    x_shape, y_shape = r.shape(x), r.shape(y)
    batches = torch.broadcast_shapes(x_shape[:-2], y_shape[:-2])
    shape = (*batches, x_shape[-2], y_shape[-1])
    if len(shape) <= 5:
        return x, y, shape
    x = r.broadcast(x, (*batches, *x_shape[-2:]))
    y = r.broadcast(y, (*batches, *y_shape[-2:]))
    return r.reshape(x, (-1, *x_shape[-2:])), r.reshape(y, (-1, *y_shape[-2:])), shape


def _adjoint(r: Rewriter, x: Value) -> tuple[Value, bool]:
    """A transpose of the last two dimensions becomes an option of the operator."""
    if isinstance(x, Constant) or x.target is not tfl.transpose:
        return x, False
    rank = len(r.shape(x))
    order = (*range(rank - 2), rank - 1, rank - 2)
    if tuple(x.kwargs["perm"]) != order:  # type: ignore[arg-type]
        return x, False
    return x.args[0], True  # type: ignore[return-value]


@legalize(aten.einsum.default)
def einsum(r: Rewriter, equation: str, operands: Sequence[Value], path: object = None) -> Value:
    """A product of two by permutes, reshapes and one BATCH_MATMUL."""
    from .contraction import contract

    return contract(r, equation, list(operands))
