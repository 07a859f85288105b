"""The trees of a damaged file: what of a table or an index can be reached from its root, and where the holes are.

A hole is a page that should be there and cannot be read. What its parent says of it stays: which table it belongs to,
and between which row numbers its rows lie. So leaves that nothing leads to any more, because a page between the root
and them was overwritten, find their way back to their table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentos_store.operations.salvage.pages import (
    INDEX_INNER,
    INDEX_LEAF,
    TABLE_INNER,
    TABLE_LEAF,
    DamageError,
    Page,
    Pages,
    signed,
)

LEAST, GREATEST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Hole:
    """A part of a table that cannot be reached."""

    page: int
    above: int
    """Its rows have greater numbers than this."""
    upto: int


@dataclass(slots=True)
class Tree:
    """What can be reached from a root."""

    leaves: list[int] = field(default_factory=list)
    """Pages with rows, in the order of the rows."""
    holes: list[Hole] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every page was reached."""
        return not self.holes


class Forest:
    """All trees that were walked so far, and which pages they take."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.taken: set[int] = set()
        self.free, self.knows_free = pages.free_pages()

    def table(self, root: int) -> Tree:
        """Walk a table, from its root to its leaves."""
        tree = Tree()
        todo = [(root, LEAST - 1, GREATEST)]
        while todo:
            number, above, upto = todo.pop()
            try:
                page = self._take(number, TABLE_INNER, TABLE_LEAF)
                _check_filled(page, root)
                if page.kind == TABLE_LEAF:
                    _check_order(self.numbers(page), above, upto)
                    tree.leaves.append(number)
                    continue
                children = self._children(page, above, upto)
            except DamageError:
                tree.holes.append(Hole(number, above, upto))
                continue
            todo.extend(reversed(children))
        return tree

    def index(self, root: int) -> tuple[list[int], bool]:
        """Walk an index; return its pages, and whether these are all."""
        found: list[int] = []
        is_whole = True
        todo = [root]
        while todo:
            number = todo.pop()
            try:
                page = self._take(number, INDEX_INNER, INDEX_LEAF)
                _check_filled(page, root)
                if page.kind == INDEX_INNER:
                    todo.extend(child for child, _ in self.pages.children(page))
                found.append(number)
            except DamageError:
                is_whole = False
        return found, is_whole

    def strays(self) -> Iterator[Page]:
        """Yield the leaves of tables that nothing leads to and that are not known to be free."""
        for number in range(1, self.pages.count + 1):
            if number in self.taken or number in self.free:
                continue
            try:
                page = self.pages.page(number)
                if page.kind == TABLE_LEAF and page.cells and not page.missing:
                    _check_order(self.numbers(page), LEAST - 1, GREATEST)
                    yield page
            except DamageError:
                continue

    def numbers(self, page: Page) -> Sequence[int]:
        """Return the numbers of the rows in a leaf."""
        return [self.pages.rowid(page, cell) for cell in page.cells]

    def _take(self, number: int, *kinds: int) -> Page:
        if number in self.taken or number in self.free:
            raise DamageError
        page = self.pages.page(number)
        if page.kind not in kinds:
            raise DamageError
        self.taken.add(number)
        return page

    def _children(self, page: Page, above: int, upto: int) -> list[tuple[int, int, int]]:
        children = []
        for child, key in self.pages.children(page):
            end = upto if key is None else signed(key)
            if not (above < end <= upto or (key is None and above <= end)):
                # Its keys are not in order, so they cannot be trusted.
                raise DamageError
            children.append((child, above, end))
            above = end
        return children


def _check_filled(page: Page, root: int) -> None:
    if not page.cells and page.number != root:
        # Only a root may be empty: another page was written to this place.
        raise DamageError


def _check_order(numbers: Sequence[int], above: int, upto: int) -> None:
    for number in numbers:
        if not above < number <= upto:
            raise DamageError
        above = number
