"""Seeds for completions whose request brings none."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

REMEMBERED = 65536
"""Different requests whose repetitions are counted."""


class SeedBook:
    """Derives a seed from the service's own, the request, and how often it was asked before.

    The members of a group send the same request and must differ; which of them comes first must not
    matter to any other request. So repetitions are counted per request, not overall.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._asked: OrderedDict[bytes, int] = OrderedDict()

    def next(self, *request: object) -> int:
        """The seed for the next completion of *request*, 64 bits."""
        digest = hashlib.sha256(repr((self._seed, *request)).encode()).digest()
        count = self._asked.pop(digest, 0)
        self._asked[digest] = count + 1
        if len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return int.from_bytes(hashlib.sha256(digest + count.to_bytes(8, "big")).digest()[:8], "big")
