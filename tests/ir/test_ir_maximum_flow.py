"""The minimum cut against networkx on random networks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fxquant.ir.maximum_flow import SINK, SOURCE, Network

Edges = list[tuple[int, int, int]]
NODES = st.integers(0, 7)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NODES, NODES, st.integers(0, 9)), max_size=30))
def test_cut_is_minimal(edges: Edges) -> None:
    import networkx as nx

    network = Network()
    graph: nx.DiGraph[int] = nx.DiGraph()
    for _ in range(6):
        network.add_node()
    graph.add_nodes_from(range(8))
    for tail, head, capacity in edges:
        network.add_edge(tail, head, capacity)
        known = graph.get_edge_data(tail, head, {"capacity": 0})["capacity"]
        graph.add_edge(tail, head, capacity=known + capacity)
    side = network.sink_side()
    cut = sum(capacity for tail, head, capacity in edges if tail not in side and head in side)
    assert SINK in side
    assert SOURCE not in side
    assert cut == nx.minimum_cut_value(graph, SOURCE, SINK)


def test_cut_keeps_what_costs_the_same() -> None:
    network = Network()
    node = network.add_node()
    network.add_edge(SOURCE, node, 3)
    network.add_edge(node, SINK, 3)
    assert node not in network.sink_side()
