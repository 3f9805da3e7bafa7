"""Statements that outlive the process from the moment that they are noted: a file that is only appended to.

To note something costs a fraction of a transaction, so what arrives by the dozen is put here at once and
becomes rows later, many at a time. A power cut may cost what was not synced, and may bring back what was
cleared.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from hud_orchestrator.errors import StateError

Statement = tuple[str, Sequence[tuple[Any, ...]]]
"""SQL, and the parameters of every time that it is to be run."""

FRAME = struct.Struct("<II")
"""Before each record: its length in bytes, and its CRC-32."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Statement]).decode


class Journal:
    """A file of what is to become rows."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            OSError: it cannot be written.
        """
        self.path = path
        self.waiting: list[Statement] = []
        """What is noted and no row yet, in order."""
        self._file = FileIO(path, "a")
        self.size = self._file.tell()
        """Bytes, with those of what has become rows and is not cleared."""

    def note(self, statements: Sequence[Statement]) -> None:
        """Write down *statements*: all of them are kept when this returns, or none of them.

        Raises:
            OSError: there is no room for it.
        """
        record = _encode(statements)
        frame = memoryview(FRAME.pack(len(record), zlib.crc32(record)) + record)
        size = self.size + len(frame)
        try:
            while frame:
                frame = frame[self._file.write(frame) :]
        except OSError as error:
            self._cut(self.size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.size = size
        self.waiting += statements

    def read_back(self) -> None:
        """Find what was noted by who was killed. The first record that is not whole ends it, and is cut off.

        Raises:
            StateError: a whole record is none of this program.
        """
        content, end = self.path.read_bytes(), 0
        for record in _whole(content):
            try:
                self.waiting += _decode(record)
            except msgspec.MsgspecError as error:
                raise StateError(
                    f"{self.path}: is not of this program: {error}; move it away to go on without it"
                ) from error
            end += FRAME.size + len(record)
        self._cut(end)

    def sync(self) -> None:
        """Wait until the disk has everything that is noted."""
        os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Forget everything: it has become rows, and the disk has them."""
        self.waiting.clear()
        self._cut(0)

    def close(self) -> None:
        """Close the file, and leave none where it is empty."""
        self._file.close()
        if not self.size:
            self.path.unlink(missing_ok=True)

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self.size = size


def _whole(content: bytes) -> Iterator[bytes]:
    """The records in *content* up to the first one that is torn."""
    at = 0
    while at + FRAME.size <= len(content):
        length, check = FRAME.unpack_from(content, at)
        at += FRAME.size
        record = content[at : at + length]
        # Blocks that were never written are read as zeros, and no record is empty.
        if not record or len(record) < length or zlib.crc32(record) != check:
            return
        yield record
        at += length
