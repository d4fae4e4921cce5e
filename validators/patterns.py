"""Regexes and LIKE patterns over text columns, with exactly the meaning of Python's `re.search`.

A pattern is parsed by Python's own parser and, unless it looks around or back, made into a finite automaton that reads each byte once: no pattern of
that kind can backtrack. What single characters match is asked of `re` itself, once a character. All other patterns are matched by `re`, each
distinct value of a batch once, in a process of its own where a value that takes too long is an error that names it.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.kernels import automaton
from gristmill.validators.backtracking import search_all
from gristmill.validators.columns import Column, Mask

MOST_NODES, MOST_STATES, MOST_CLASSES = 4000, 4000, 250
NEWLINE, WORD, OTHER, EDGE = "newline", "word", "other", "edge"  # what lies on either side of a position
LAST_NEWLINE = "last newline"


class _UnsupportedError(Exception):
    """The pattern is not regular, or its automaton too large."""


class Node(NamedTuple):
    """A state of the nondeterministic automaton: an atom to consume (or None), an anchor to hold (or None), and where to go then."""

    atom: int | None
    anchor: Any
    then: tuple[int, ...]


class _Builder:
    """Thompson's construction over the tree of Python's parser, from the end backwards."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.nodes: list[Node] = [Node(None, None, ())]  # node 0 accepts
        self.atoms: list[Any] = []
        self._known: dict[str, int] = {}

    def add(self, atom: int | None, anchor: Any, then: tuple[int, ...]) -> int:
        if len(self.nodes) >= MOST_NODES:
            raise _UnsupportedError
        self.nodes.append(Node(atom, anchor, then))
        return len(self.nodes) - 1

    def sequence(self, items: Any, then: int) -> int:
        for operation, argument in reversed(list(items)):
            then = self.item(operation, argument, then)
        return then

    def item(self, operation: Any, argument: Any, then: int) -> int:
        if operation in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN):
            return self.add(self._atom(operation, argument), None, (then,))
        if operation is _constants.BRANCH:
            return self.add(None, None, tuple(self.sequence(branch, then) for branch in argument[1]))
        if operation is _constants.SUBPATTERN:
            _, added, removed, inner = argument
            if added or removed:
                raise _UnsupportedError
            return self.sequence(inner, then)
        if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            least, most, inner = argument
            return self._repeat(least, most, inner, then)
        if operation is _constants.AT:
            return self.add(None, argument, (then,))
        raise _UnsupportedError

    def _repeat(self, least: int, most: int, inner: Any, then: int) -> int:
        if most is _constants.MAXREPEAT:
            loop = self.add(None, None, ())
            self.nodes[loop] = Node(None, None, (self.sequence(inner, loop), then))
            then = loop
        else:
            after = then
            for _ in range(most - least):
                then = self.add(None, None, (self.sequence(inner, then), after))
        for _ in range(least):
            then = self.sequence(inner, then)
        return then

    def _atom(self, operation: Any, argument: Any) -> int:
        key = repr((operation, argument))
        if key not in self._known:
            state = _parser.State()
            state.flags = self.flags
            one = _parser.SubPattern(state, [(operation, argument)])
            self._known[key] = len(self.atoms)
            self.atoms.append(_compiler.compile(one, self.flags & ~_SYNTAX_ONLY))
        return self._known[key]


_SYNTAX_ONLY = re.VERBOSE | re.DEBUG


class Automaton:
    """A pattern as a table; classes of characters are learned as they occur. Safe to use from several threads."""

    def __init__(self, pattern: str) -> None:
        tree = _parser.parse(pattern, 0)
        flags = tree.state.flags
        builder = _Builder(flags)
        self._start = builder.sequence(tree, 0)
        self._nodes, self._atoms = builder.nodes, builder.atoms
        self._multiline = bool(flags & re.MULTILINE)
        self._word = re.compile(r"\w", flags & (re.ASCII | re.UNICODE))
        anchors = {node.anchor for node in self._nodes if node.anchor is not None}
        self._minds_words = bool(anchors & {_constants.AT_BOUNDARY, _constants.AT_NON_BOUNDARY})
        self._minds_lines = self._multiline and _constants.AT_BEGINNING in anchors
        self._signatures: dict[tuple[Any, ...], int] = {}
        self._classes: list[tuple[frozenset[int], str]] = []
        self._class_of = np.full(0x110000, automaton.UNKNOWN, np.uint8)
        self._lock = threading.Lock()
        self._states: dict[tuple[frozenset[int], str], int] = {}
        self._rows: list[list[int]] = [[], [], [], []]
        self._ends = [1, 0, 0, 0]
        for point in range(128):
            self._class_of[point] = self._class(point)
        self._last_newline = self._signature(self._members("\n"), LAST_NEWLINE)
        self._state(frozenset(), EDGE)
        self._ends[automaton.START] = int(
            re.search(pattern, "") is not None
        )  # where `re` has its own mind: \\B is nowhere in ""
        self._grow()
        self._ascii = self._byte_table()

    def search(self, column: Column) -> Mask:
        """(rows,) bool: whether the pattern is found in each row of a text column; anything for null rows."""
        states = automaton.run(column.text, self._ascii)
        wide = np.flatnonzero(states == automaton.FOREIGN)
        if len(wide):
            table, _ = self._tables
            automaton.run_wide(column.text, wide, self._class_of, self._last_newline, table, states)
            if (states[wide] == automaton.FOREIGN).any():
                self._learn(column)
                table, _ = self._tables
                automaton.run_wide(column.text, wide, self._class_of, self._last_newline, table, states)
        return self._tables[1][states]

    def _byte_table(self) -> npt.NDArray[np.uint32]:
        table, _ = self._tables
        found = np.full((len(table), 256), automaton.FOREIGN, np.uint32)
        found[:, :128] = table[:, self._class_of[:128]]
        found[:, automaton.LAST_NEWLINE] = table[:, self._last_newline]
        for absorbing in (automaton.ACCEPT, automaton.REJECT):
            found[absorbing] = absorbing
        return found

    def _learn(self, column: Column) -> None:
        """Classifies every character of the column."""
        rows = column.text
        text = rows.data[rows.offsets[0] : rows.offsets[-1]].tobytes().decode("utf-8", "replace")
        points = np.unique(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32))
        with self._lock:
            for point in points[self._class_of[points] == automaton.UNKNOWN].tolist():
                self._class_of[point] = self._class(point)
            self._grow()

    def _class(self, point: int) -> int:
        char = chr(point)
        side = NEWLINE if char == "\n" else WORD if self._minds_words and self._word.match(char) else OTHER
        return self._signature(self._members(char), side)

    def _members(self, char: str) -> frozenset[int]:
        return frozenset(i for i, atom in enumerate(self._atoms) if atom.fullmatch(char))

    def _signature(self, members: frozenset[int], side: str) -> int:
        number = self._signatures.setdefault((members, side), len(self._classes))
        if number == len(self._classes):
            self._classes.append((members, side))
            if number >= MOST_CLASSES:
                raise _UnsupportedError
        return number

    def _state(self, nodes: frozenset[int], before: str) -> int:
        """The number of the state in which these nodes have just been reached, with `before` left of the position."""
        if before == WORD and not self._minds_words:
            before = OTHER
        if before == NEWLINE and not (self._minds_lines or self._minds_words):
            before = OTHER
        key = (nodes, before)
        if key not in self._states:
            self._states[key] = len(self._states) + automaton.START
            if len(self._states) > MOST_STATES:
                raise _UnsupportedError
            if len(self._rows) <= self._states[key]:
                self._rows.append([])
                self._ends.append(0)
            self._ends[self._states[key]] = int(0 in self._closure(nodes, before, EDGE))
        return self._states[key]

    def _grow(self) -> None:
        """Fills the table for every state and class, old and new."""
        width = len(self._classes)
        done = 0
        while done < len(self._states):
            for nodes, before in list(self._states)[done:]:
                row = self._rows[self._states[nodes, before]]
                row.extend(self._step(nodes, before, *self._classes[number]) for number in range(len(row), width))
                done += 1
        table = np.zeros((len(self._rows), width), np.uint16)
        for absorbing in (automaton.REJECT, automaton.FOREIGN):
            table[absorbing] = absorbing
        for number in self._states.values():
            table[number] = self._rows[number]
        self._tables = table, np.array(self._ends, np.bool_)

    def _step(self, nodes: frozenset[int], before: str, members: frozenset[int], side: str) -> int:
        closed = self._closure(nodes, before, side)
        if 0 in closed:
            return automaton.ACCEPT
        then = frozenset(self._nodes[node].then[0] for node in closed if self._nodes[node].atom in members)
        return self._state(then, NEWLINE if side == LAST_NEWLINE else side)

    def _closure(self, nodes: frozenset[int], before: str, after: str) -> set[int]:
        """All nodes that consume a character or accept, reached from these, or from the start, without consuming any."""
        found: set[int] = set()
        waiting = [self._start, *nodes]
        seen = set(waiting)
        while waiting:
            number = waiting.pop()
            node = self._nodes[number]
            if number == 0 or node.atom is not None:
                found.add(number)
            elif node.anchor is None or self._holds(node.anchor, before, after):
                waiting.extend(then for then in node.then if then not in seen)
                seen.update(node.then)
        return found

    def _holds(self, anchor: Any, before: str, after: str) -> bool:
        newline = after in (NEWLINE, LAST_NEWLINE)
        if anchor is _constants.AT_BEGINNING:
            return before == EDGE or (self._multiline and before == NEWLINE)
        if anchor is _constants.AT_BEGINNING_STRING:
            return before == EDGE
        if anchor is _constants.AT_END:
            return after in (EDGE, LAST_NEWLINE) or (self._multiline and newline)
        if anchor is _constants.AT_END_STRING:
            return after == EDGE
        if anchor in (_constants.AT_BOUNDARY, _constants.AT_NON_BOUNDARY):
            return ((before == WORD) != (after == WORD)) == (anchor is _constants.AT_BOUNDARY)
        raise _UnsupportedError


@functools.lru_cache(maxsize=512)
def compiled(pattern: str) -> Automaton | None:
    """The pattern's automaton, None if it has none.

    Raises:
        re.error: not a pattern.
    """
    re.compile(pattern)
    try:
        return Automaton(pattern)
    except (_UnsupportedError, RecursionError):
        return None


def search(pattern: str, column: Column) -> Mask:
    """(rows,) bool: whether `re.search` finds the pattern in the row; False for null.

    Values that are no text are matched as `str(value)`, as Great Expectations has it.

    Raises:
        re.error: not a pattern.
        TimeoutError: a value took too long; the text names the pattern and the value.
    """
    fast = compiled(pattern)
    texts = as_text(column)
    if fast is not None:
        found = fast.search(texts)
        return found if texts.valid is None else found & texts.valid
    values = pc.dictionary_encode(texts.array)
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    matches = search_all(pattern, values.dictionary.to_pylist())
    codes = pc.fill_null(values.indices, 0).to_numpy(zero_copy_only=False)
    found = matches[codes] if len(matches) else np.zeros(texts.rows, bool)
    return found if texts.valid is None else found & texts.valid


def as_text(column: Column) -> Column:
    """A column of the `str()` of each value, null where null."""
    if column.kind == "text":
        return column
    return Column(column.name, pa.array(_texts(column), pa.large_string()))


def _texts(column: Column) -> Iterator[str | None]:
    values = iter(column.objects)
    valid = np.ones(column.rows, bool) if column.valid is None else column.valid
    for there in valid.tolist():
        yield str(next(values)) if there else None


def like(pattern: str, escape: str | None = None) -> str:
    """The regex of a SQL LIKE pattern: % is any text, _ any one character, all else itself; after `escape` they are themselves.

    Raises:
        ValueError: `escape` isn't one character, or ends the pattern.
    """
    if escape is not None and len(escape) != 1:
        raise ValueError(f"escape must be one character, got {escape!r}")
    parts, chars = [], iter(pattern)
    for char in chars:
        if char == escape:
            after = next(chars, None)
            if after is None:
                raise ValueError(f"LIKE pattern {pattern!r} ends with its escape character")
            parts.append(re.escape(after))
        else:
            parts.append({"%": ".*", "_": "."}.get(char) or re.escape(char))
    return rf"(?s)\A{''.join(parts)}\Z"
