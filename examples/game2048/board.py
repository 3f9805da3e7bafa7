"""The rules of 2048, on a square board of any size: slide, merge, and a new tile after every legal move."""

from __future__ import annotations

import random
from collections.abc import Sequence

DIRECTIONS = ("up", "down", "left", "right")

FOURS = 0.1
"""How often a new tile is a 4 and not a 2, as in the original game."""

Rows = list[list[int]]


class Board:
    """A game from its seed: the same moves on the same seed meet the same new tiles."""

    def __init__(self, *, seed: int, size: int) -> None:
        """Begin with two tiles.

        Raises:
            ValueError: *size* is less than 2.
        """
        if size < 2:
            raise ValueError(f"a board has at least 2 rows, not {size}")
        self._random = random.Random(seed)
        self.rows: Rows = [[0] * size for _ in range(size)]
        """Tiles by their value; 0 is an empty cell. Shape [size, size]."""
        self.score = 0
        """The sum of all tiles that merges have made."""
        self._add_tile()
        self._add_tile()

    @property
    def highest(self) -> int:
        """The largest tile."""
        return max(map(max, self.rows))

    @property
    def over(self) -> bool:
        """Whether no move is legal."""
        return all(slid(self.rows, direction)[0] == self.rows for direction in DIRECTIONS)

    def move(self, direction: str) -> bool:
        """Slide all tiles, and add a new one; ``False`` when nothing moves, which is no legal move."""
        rows, gained = slid(self.rows, direction)
        if rows == self.rows:
            return False
        self.rows, self.score = rows, self.score + gained
        self._add_tile()
        return True

    def _add_tile(self) -> None:
        size = range(len(self.rows))
        row, column = self._random.choice([(r, c) for r in size for c in size if not self.rows[r][c]])
        self.rows[row][column] = 4 if self._random.random() < FOURS else 2


def slid(rows: Rows, direction: str) -> tuple[Rows, int]:
    """The board after all tiles slid in *direction*, and the sum of the merged ones."""
    upright, backwards = direction in ("up", "down"), direction in ("right", "down")
    lines = _transposed(rows) if upright else rows
    merged = [_merged(line[::-1] if backwards else line) for line in lines]
    lines = [line[::-1] if backwards else line for line, _ in merged]
    return _transposed(lines) if upright else lines, sum(gained for _, gained in merged)


def _merged(line: Sequence[int]) -> tuple[list[int], int]:
    """A line slid to its beginning. Equal neighbours merge, each tile once, the foremost pair first."""
    tiles = [tile for tile in line if tile]
    kept: list[int] = []
    gained = 0
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile += tiles.pop(0)
            gained += tile
        kept.append(tile)
    return kept + [0] * (len(line) - len(kept)), gained


def _transposed(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]
