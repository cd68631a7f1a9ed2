"""In-place operators: the same operator without the write, then the write.

x.add_(y)       -> %add = add(%x, %y); from now on x is %add
x.zero_()       -> full(shape, 0.0)
x.copy_(y)      -> y, broadcast and converted
x.unsqueeze_(0) -> unsqueeze(%x, 0)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Call, Engine, rule
from fxquant.passes.functional.resolution import choose
from fxquant.passes.functional.rules.creation import emit_full
from fxquant.passes.functional.schema import parameters
from fxquant.passes.functional.unsupported import Unsupported

_OTHER_NAMES = {"normal_": "normal_functional"}
_CHANGES_SHAPE = frozenset({
    "squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "as_strided_",
})  # fmt: skip
_REFUSED = frozenset({"set_", "resize_", "resize_as_", "rename_"})


@rule("write")
def write(engine: Engine, call: Call) -> Any:
    """Any operator that writes into its first argument, or into `out`."""
    written = [each.name for each in parameters(call.target) if each.writes]
    name = call.name
    if written == ["out"]:
        named = dict(call.named)
        return engine.assign(named.pop("out"), _without_write(engine, name, named))
    if len(written) != 1 or name in _REFUSED or not name.endswith("_"):
        raise Unsupported(f"{call.target} writes in a way that has no functional form")
    target = call[written[0]]
    if name in _CHANGES_SHAPE:
        engine.rebind(target, _without_write(engine, name.removesuffix("_"), call.named))
        call.target(*call.named.values())
        return target
    name = _OTHER_NAMES.get(name, name.removesuffix("_"))
    return engine.assign(target, _without_write(engine, name, call.named))


def _without_write(engine: Engine, name: str, named: dict[str, Any]) -> Tensor:
    packet = getattr(aten, name)
    keyword = {key: value for key, value in named.items() if key != "self"}
    first = [named["self"]] if "self" in named else []
    overload = choose(packet, first, keyword)
    result: Tensor = engine.call(overload, *first, **keyword)
    return result


@rule("fill")
def fill(engine: Engine, call: Call) -> Any:
    """full(shape, value)"""
    value = call["value"]
    if isinstance(value, Tensor):
        return value
    return engine.define(call.result, emit_full(engine, call.result, value))


@rule("zero")
def zero(engine: Engine, call: Call) -> Any:
    """full(shape, 0)"""
    return engine.define(call.result, emit_full(engine, call.result, 0))


@rule("copy")
def copy(engine: Engine, call: Call) -> Any:
    """The source; the write broadcasts and converts it."""
    return call["src"]
