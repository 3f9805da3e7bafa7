"""Records that outlive the process from the moment that they are written: a file that is only appended to.

To write one costs a fraction of a transaction, so what arrives by the dozen is put here at once and becomes
rows later, many at a time. A power cut may cost what was not synced, and may bring back what was cleared.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from io import FileIO
from pathlib import Path

FRAME = struct.Struct("<II")
"""Before each record: its length in bytes, and its CRC-32."""


class Journal:
    """A file of records."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            OSError: it cannot be written.
        """
        self.path = path
        self._file = FileIO(path, "a")
        self.size = self._file.tell()
        """Bytes of all records."""

    def append(self, record: bytes) -> None:
        """Write a record: all of it is kept when this returns, or none of it.

        Raises:
            OSError: there is no room for it.
        """
        frame = FRAME.pack(len(record), zlib.crc32(record)) + record
        written = self._file.write(frame)
        if written < len(frame):
            self._cut(self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def records(self) -> list[bytes]:
        """Every record that is whole, in order; the first one that is not ends them, and is cut off."""
        content, found, at = self.path.read_bytes(), list[bytes](), 0
        while at + FRAME.size <= len(content):
            length, check = FRAME.unpack_from(content, at)
            record = content[at + FRAME.size : at + FRAME.size + length]
            # Blocks that were never written are read as zeros, and no record is empty.
            if not length or len(record) < length or zlib.crc32(record) != check:
                break
            found.append(record)
            at += FRAME.size + length
        self._cut(at)
        return found

    def sync(self) -> None:
        """Wait until the disk has every record."""
        os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Forget every record."""
        if self.size:
            self._cut(0)

    def close(self) -> None:
        """Close the file, and leave none where it is empty."""
        self._file.close()
        if not self.size:
            self.path.unlink(missing_ok=True)

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self.size = size
