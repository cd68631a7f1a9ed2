"""Put a FakeQuantize behind every value that is stored as integers, shared where the target shares.

    %x_quant = quant(%x)                 %x_quant = quant(%x)
    %conv = conv2d(%x_quant, @w, @b)     %x_quant_fq = fake_quantize<int8 …> @quantizers.x(%x_quant)
    %relu = relu(%conv)              ->  %w_fq = fake_quantize<int8 … axis=0 …> @quantizers.w(@w)
    %pool = max_pool2d(%relu)            %conv = conv2d(%x_quant_fq, %w_fq, @b)
                                         %relu = relu(%conv)
                                         %relu_fq = fake_quantize<int8 …> @quantizers.relu(%relu)
                                         %pool = max_pool2d(%relu_fq)

Nothing stands between an operator and the activation fused into it, nor behind operators that only
move values, nor at a bias (int32; its scale follows). Values that must share parameters call one
module. Where a value with prescribed parameters goes into such a set, it is quantized again at
that edge only. All FakeQuantize are off at first, so nothing changes yet.

Where operators compute in float, `float_regions` says what stands there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch.fx import GraphModule, Node

from fxquant.ir.edit import add_module, get_attribute, inherit, is_attribute, tensor_at
from fxquant.ir.placement import device_of
from fxquant.ir.state import state_of
from fxquant.passes.base import EXACT, Pass, PassResult, Semantics
from fxquant.passes.float_regions import dynamic_spec, rounded_values
from fxquant.passes.registry import register_pass
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import (
    Annotation,
    ConstraintTable,
    Role,
    annotation_of,
    is_float,
    roles,
)
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.grouping import GRID, Group, Groups
from fxquant.quant.spec import QuantSpec, precision
from fxquant.quant.stubs import DeQuantStub, QuantStub

NAMESPACE = "quantizers"


@register_pass
@dataclass(frozen=True)
class InsertObservers(Pass):
    """%y = relu(%x) !int8  ->  %y = relu(%x) !int8; %y_fq = fake_quantize(%y)"""

    name: ClassVar[str] = "insert-observers"
    requires: ClassVar[frozenset[str]] = frozenset({"stubbed"})
    establishes: ClassVar[frozenset[str]] = frozenset({"observed"})
    semantics: ClassVar[Semantics] = EXACT

    def run(self, graph_module: GraphModule) -> PassResult:
        config = state_of(graph_module).config
        config = config if isinstance(config, QuantConfig) else QuantConfig()
        return PassResult(graph_module, _Inserter(graph_module, config).run())


class _Inserter:
    def __init__(self, root: GraphModule, config: QuantConfig) -> None:
        self.root, self.config, self.device = root, config, device_of(root)
        table = state_of(root).constraints
        self.per_tensor = table.per_tensor if isinstance(table, ConstraintTable) else frozenset()
        self.groups = Groups()
        self.placed: dict[tuple[Node, str], Node] = {}
        self.weights: dict[tuple[str, QuantSpec], Group] = {}
        self.casts: dict[tuple[Node | str, str], Group] = {}
        self.again: dict[tuple[Node, Node], Group | None] = {}
        self.grids: dict[tuple[str, str, tuple[float, int] | None], Node] = {}
        self.dynamic: dict[tuple[Node, QuantSpec], Group] = {}

    def run(self) -> bool:
        nodes = [node for node in self.root.graph.nodes if node.op != "get_attr"]
        for node in nodes:
            self._group(node)
        for node in nodes:
            self._quantize_weights(node)
        values = [node for node in self.root.graph.nodes if node in self.groups]
        for node in values:
            if self._is_computed(node):
                self._place(node, self.groups[node], list(node.users))
        for (user, value), group in self.again.items():
            self._requantize(user, value, group or self.groups[user])
        for node in nodes:
            self._quantize_dynamically(node)
        for value, spec, users in list(rounded_values(self.root)):
            self._place(value, Group(spec, constant=is_attribute(value)), users)
        return bool(self.placed)

    def _quantize_dynamically(self, node: Node) -> None:
        """A dynamic FakeQuantize before an operator, shared by those that read it alike."""
        found = dynamic_spec(node)
        if found is not None:
            value, spec = found
            group = self.dynamic.setdefault((value, spec), Group(spec))
            self._place(value, group, [node])

    def _requantize(self, user: Node, value: Node, group: Group) -> None:
        source = self.placed.get((value, self._path(self.groups[value])), value)
        self._place(source, group, [user])

    def _group(self, node: Node) -> None:
        """Give a node's result its group, and join those that the target wants joined."""
        spec = self._entry_spec(node)
        if spec is not None:
            self.groups.add(node, self._observed(node, spec))
            return
        annotation = annotation_of(node)
        if annotation is None or not annotation.quantized:
            return
        self._constants(node, annotation)
        if is_float(node) and annotation.fused_into is None:
            self._group_output(node, annotation)
            self._share(node)
        for operand, role in roles(node):
            if operand.node in self.groups:
                self._demand(node, operand.node, role, annotation)

    def _entry_spec(self, node: Node) -> QuantSpec | None:
        """The spec of a value that enters a quantized region: that of the first reader."""
        if not self._is_module(node, QuantStub):
            return None
        readers = (annotation_of(user) for user in node.users)
        return next(r.precision.activations for r in readers if r is not None)

    def _constants(self, node: Node, annotation: Annotation) -> None:
        spec = annotation.precision.activations
        assert spec is not None
        for operand, role in roles(node):
            wanted = is_attribute(operand.node) and _is_value(role)
            if wanted and operand.node not in self.groups:
                self.groups.add(operand.node, replace(spec, observer="minmax"), constant=True)
                self._share(operand.node)

    def _group_output(self, node: Node, annotation: Annotation) -> None:
        output, spec = annotation.output, annotation.precision.activations
        assert spec is not None
        operands = sorted(roles(node), key=lambda pair: pair[0].name != output.of)
        source = operands[0][0].node if operands else None
        # The end of a fused operator has its own parameters: what it clamps is not stored.
        if output.kind in {"same", "carried"} and source is not None and source in self.groups:
            if self.groups[source].spec.dtype == spec.dtype:
                self.groups.join(node, source)
            else:
                self.groups.put(node, self._cast(source, spec))
            return
        fixed = output.fixed_for(spec.dtype) or self._common_fixed(node, output)
        self.groups.add(node, replace(self._observed(node, spec), fixed=fixed))

    def _cast(self, value: Node, spec: QuantSpec) -> Group:
        """The group of a value where it is read in another dtype than its own."""
        return self.casts.setdefault((_family(value), spec.dtype), Group(spec))

    def _share(self, node: Node) -> None:
        """Join a value with those that name the same grid: a state has one for all steps."""
        grid, spec = node.meta.get(GRID), self.groups[node].spec
        if grid is not None:
            first = self.grids.setdefault((grid, spec.dtype, spec.fixed), node)
            self.groups.join(node, first)

    def _common_fixed(self, node: Node, output: Role) -> tuple[float, int] | None:
        """The prescribed parameters that all joined operands have in common."""
        if output.kind != "shared":
            return None
        joined = [o.node for o, role in roles(node) if role.kind == "shared"]
        found = {self.groups[n].spec.fixed if n in self.groups else None for n in joined}
        return found.pop() if len(found) == 1 else None

    def _observed(self, node: Node, spec: QuantSpec) -> QuantSpec:
        """With the observer for returned values, where the value is one."""
        if self.config.outputs is None or spec.fixed is not None or not self._is_returned(node):
            return spec
        if spec.dtype == "int16":  # whose observer cuts nothing anyway
            return spec
        return replace(spec, observer=self.config.outputs)

    def _is_returned(self, node: Node) -> bool:
        return any(self._leads_out(user) for user in node.users)

    def _leads_out(self, user: Node) -> bool:
        if user.op == "output":
            return True
        annotation = annotation_of(user)
        moves = annotation is not None and annotation.output.kind == "carried"
        return (moves or self._is_module(user, DeQuantStub)) and self._is_returned(user)

    def _demand(self, node: Node, value: Node, role: Role, annotation: Annotation) -> None:
        """Fulfill what an operator demands of one operand."""
        group, spec = self.groups[value], annotation.precision.activations
        assert spec is not None
        if role.kind == "shared":
            if group.spec.fixed == self.groups[node].spec.fixed and group.spec.dtype == spec.dtype:
                self.groups.join(node, value)
            else:
                self.again[node, value] = None
        elif group.spec.dtype != spec.dtype:
            self.again[node, value] = self._cast(value, spec)
        elif role.kind == "symmetric":
            group.make_symmetric()

    def _quantize_weights(self, node: Node) -> None:
        """FakeQuantize at the constant weights of an operator, one per tensor and spec."""
        annotation = annotation_of(node)
        if annotation is None or annotation.precision.form in {"float", "rounded"}:
            return
        if annotation.precision.weights is None:
            return
        for operand, role in roles(node):
            if is_attribute(operand.node) and role.kind == "symmetric":
                weights = _weights(annotation)
                per_channel = self._is_per_channel(annotation, weights)
                spec = weights.along(role.axis if per_channel else None)
                key = (str(operand.node.target), spec)
                group = self.weights.setdefault(key, Group(spec, constant=True))
                self._place(operand.node, group, [node])

    def _is_per_channel(self, annotation: Annotation, weights: QuantSpec) -> bool:
        """Whether weights have one scale per channel: as asked, where kernels leave the choice."""
        forms = None if annotation.row is None else annotation.row.weights
        if forms is not None and annotation.precision.form in forms.per_channel:
            return True
        return self.config.per_channel and weights.dtype not in self.per_tensor

    def _is_computed(self, node: Node) -> bool:
        annotation = annotation_of(node)
        return annotation is None or annotation.output.kind != "carried"

    def _place(self, value: Node, group: Group, users: list[Node]) -> None:
        path = self._path(group, value)
        node = self.placed.get((value, path))
        if node is None:
            name = f"{value.name.removesuffix('_fq')}_fq"
            with self.root.graph.inserting_after(value):
                node = self.root.graph.create_node("call_module", path, (value,), {}, name=name)
            inherit(node, value)
            self.placed[value, path] = node
        for user in users:
            user.replace_input_with(value, node)

    def _path(self, group: Group, value: Node | None = None) -> str:
        """Where the group's FakeQuantize stands; it is made on first use."""
        if group.path is None:
            assert value is not None
            first = group.values[0] if group.values else value
            group.path = self._make(first, group)
        return group.path

    def _make(self, value: Node, group: Group) -> str:
        axis, channels = group.spec.axis, 1
        if axis is not None:
            channels = tensor_at(self.root, value).shape[axis]
        module = FakeQuantize(group.spec, channels, constant=group.constant).to(self.device)
        label = str(value.target).replace(".", "_") if is_attribute(value) else value.name
        return add_module(self.root, f"{NAMESPACE}.{label}", module)

    def _is_module(self, node: Node, kind: type) -> bool:
        if node.op != "call_module":
            return False
        return isinstance(get_attribute(self.root, str(node.target)), kind)


def _weights(annotation: Annotation) -> QuantSpec:
    """The spec of constants; operators without weight forms (PRELU's slopes) read 8 bits."""
    chosen = annotation.precision
    row = annotation.row
    if (
        row is not None
        and row.weights is None
        and chosen.weights is not None
        and chosen.weights.dtype == "int4"
    ):
        chosen = precision(chosen.otherwise)
    assert chosen.weights is not None
    return chosen.weights


def _family(value: Node) -> Node | str:
    """What shares a grid with a value wherever it is cast: all that names the same one."""
    grid: str | None = value.meta.get(GRID)
    return value if grid is None else grid


def _is_value(role: Role) -> bool:
    return role.kind in {"asymmetric", "shared", "same", "carried"}
