"""Keys and values of sequences of unequal length, decoded together.

All rows end at the same column, so one step writes one column for everybody; what differs is where
they start::

    column   0  1  2  3  4  5  6  7  8        low = 2, high = 7
    row 0    .  .  a  b  c  d  e              start 2
    row 1    .  .  .  .  .  x  y              start 5: columns 2 to 4 are masked
                   ^ low          ^ high: written next

A row leaves by having the last row copied over it, and joins after the last one: both cost one row.
Columns below ``low`` are dead. At the end of the buffers the live columns move to new ones, twice as
wide as the live part, so a step pays a constant share of that copy.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

SPARE_COLUMNS = 64
"""Columns kept free at least when buffers are made; a small batch should not move at every step."""


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One attention layer's share: buffers of shape [rows, heads, columns, head size]."""

    is_sliding = False

    def __init__(self, columns: RaggedCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.buffers = [keys, values]
        # Weakly: in a circle, the buffers would be kept until the next collection of garbage.
        self._columns: RaggedCache = weakref.proxy(columns)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Buffers are made by ``RaggedCache.join``."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        rows, low, high = len(self._columns.starts), self._columns.low, self._columns.high
        keys, values = self.buffers
        keys[:rows, :, high] = key_states[:, :, 0]
        values[:rows, :, high] = value_states[:, :, 0]
        return keys[:rows, :, low : high + 1], values[:rows, :, low : high + 1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self._columns.high - self._columns.low

    def get_max_length(self) -> int:
        return -1

    def relocate(self, rows: int, columns: int, shift: int) -> None:
        """Move the live part by *shift* columns into buffers of a new size."""
        low, high, live = self._columns.low, self._columns.high, len(self._columns.starts)
        for index, old in enumerate(self.buffers):
            new = old.new_zeros((rows, old.shape[1], columns, old.shape[3]))
            new[:live, :, low + shift : high + shift] = old[:live, :, low:high]
            self.buffers[index] = new


class RaggedCache:
    """The cache of one batch. ``past`` goes to the model; the rest keeps rows and columns in order."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        """Column of each row's first token."""
        self.low = 0
        self.high = 0
        self._layers: list[_Layer] = []
        self.past = Cache(layers=self._layers)  # type: ignore[arg-type]

    def masks(self, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Mask and positions for the column that is decoded next.

        Returns:
            attention mask, 1 on tokens, shape [B, high - low + 1], or ``None`` when no row is padded; and
            position ids, shape [B, 1].
        """
        starts = torch.tensor(self.starts, device=device)[:, None]
        positions = self.high - starts
        if max(self.starts) == self.low:
            return None, positions
        return (torch.arange(self.low, self.high + 1, device=device) >= starts).long(), positions

    def advance(self) -> None:
        """A column was written for every row; make sure that there is another."""
        self.high += 1
        if self.high == self._columns:
            self._relocate(self._rows, shift=-self.low)

    def join(self, prefilled: DynamicCache, source_rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Append rows: row k is the first ``lengths[k]`` columns of *prefilled*'s row ``source_rows[k]``."""
        self._make_room(prefilled, len(source_rows), max(lengths))
        first = len(self.starts)
        for length in sorted(set(lengths)):
            ours = [first + k for k, one in enumerate(lengths) if one == length]
            theirs = [source_rows[k] for k, one in enumerate(lengths) if one == length]
            columns = slice(self.high - length, self.high)
            for layer, source in zip(self._layers, _filled(prefilled), strict=True):
                for buffer, states in zip(layer.buffers, source, strict=True):
                    buffer[ours, :, columns] = states[theirs, :, :length]
        self.starts += [self.high - length for length in lengths]
        self.low = min(self.starts)

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = len(self.starts) - 1
        if row != last:
            for layer in self._layers:
                for buffer in layer.buffers:
                    buffer[row, :, self.low : self.high] = buffer[last, :, self.low : self.high]
            self.starts[row] = self.starts[last]
        self.starts.pop()
        self.low = min(self.starts, default=self.high)

    @property
    def _rows(self) -> int:
        return int(self._layers[0].buffers[0].shape[0]) if self._layers else 0

    @property
    def _columns(self) -> int:
        return int(self._layers[0].buffers[0].shape[2]) if self._layers else 0

    def _make_room(self, prefilled: DynamicCache, count: int, length: int) -> None:
        """Room for *count* rows more, and for *length* columns to the left of ``high``."""
        if not self._layers:
            for keys, values in _filled(prefilled):
                self._layers.append(_Layer(self, keys[:0, :, :0], values[:0, :, :0]))
        rows = len(self.starts) + count
        if rows > self._rows or self.high < length:
            # A power of two, so that rows that join one by one move the others seldom.
            capacity = max(self._rows, 1 << (rows - 1).bit_length())
            self._relocate(capacity, shift=max(length - self.high, -self.low))

    def _relocate(self, rows: int, *, shift: int) -> None:
        columns = self.high + shift + max(self.high - self.low, SPARE_COLUMNS)
        for layer in self._layers:
            layer.relocate(rows, columns, shift)
        self.low, self.high = self.low + shift, self.high + shift
        self.starts = [start + shift for start in self.starts]


def _filled(prefilled: DynamicCache) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of every layer. Each of shape [B, heads, T, head size]."""
    for layer in prefilled.layers:
        assert isinstance(layer, CacheLayerMixin)
        assert layer.keys is not None
        assert layer.values is not None
        yield layer.keys, layer.values
