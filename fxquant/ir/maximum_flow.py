"""The minimum cut of a network, by Dinitz's method.

Importing networkx costs more time than all the cuts of a model, hence these few lines; the tests
compare them with it.
"""

from __future__ import annotations

from collections import deque

SOURCE, SINK = 0, 1
INFINITE = 1 << 62


class Network:
    """A directed graph with capacities; node 0 is the source, node 1 the sink."""

    def __init__(self) -> None:
        self._leaving: list[list[int]] = [[], []]
        self._head: list[int] = []
        self._room: list[int] = []

    def add_node(self) -> int:
        """A new node."""
        self._leaving.append([])
        return len(self._leaving) - 1

    def add_edge(self, tail: int, head: int, capacity: int) -> None:
        """An edge; several between the same nodes add up."""
        for start, end, room in ((tail, head, capacity), (head, tail, 0)):
            self._leaving[start].append(len(self._head))
            self._head.append(end)
            self._room.append(room)

    def sink_side(self) -> set[int]:
        """The nodes on the sink's side of a minimum cut, the smallest such side."""
        while (levels := self._levels())[SINK] >= 0:
            places = [0] * len(levels)
            while self._augment(levels, places):
                pass
        return self._reaching_sink()

    def _levels(self) -> list[int]:
        """Each node's distance from the source by edges that have room; -1 where out of reach."""
        levels = [-1] * len(self._leaving)
        levels[SOURCE] = 0
        queue = deque([SOURCE])
        while queue and levels[SINK] < 0:
            node = queue.popleft()
            for edge in self._leaving[node]:
                head = self._head[edge]
                if self._room[edge] and levels[head] < 0:
                    levels[head] = levels[node] + 1
                    queue.append(head)
        return levels

    def _augment(self, levels: list[int], places: list[int]) -> bool:
        """Push flow along one shortest path; False if there is none left."""
        path: list[int] = []
        node = SOURCE
        while node != SINK:
            edge = self._next_edge(node, levels, places)
            if edge is not None:
                path.append(edge)
                node = self._head[edge]
            elif not path:
                return False
            else:  # a dead end: go back, and never come here again
                node = self._head[path.pop() ^ 1]
                places[node] += 1
        flow = min(self._room[edge] for edge in path)
        for edge in path:
            self._room[edge] -= flow
            self._room[edge ^ 1] += flow
        return True

    def _next_edge(self, node: int, levels: list[int], places: list[int]) -> int | None:
        leaving = self._leaving[node]
        while places[node] < len(leaving):
            edge = leaving[places[node]]
            if self._room[edge] and levels[self._head[edge]] == levels[node] + 1:
                return edge
            places[node] += 1
        return None

    def _reaching_sink(self) -> set[int]:
        found, stack = {SINK}, [SINK]
        while stack:
            for edge in self._leaving[stack.pop()]:
                tail = self._head[edge]
                if self._room[edge ^ 1] and tail not in found:
                    found.add(tail)
                    stack.append(tail)
        return found
