"""The garbage collector of a process that has many rollouts in flight."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000
"""New objects between two looks at them. A thousand rollouts in flight are some hundred thousand objects that
are no garbage, and Python's 700 has them looked at all the time."""


@contextmanager
def quiet_heap() -> Iterator[None]:
    """Leave out of collections what is there to stay, which is what was imported, and collect less often.

    For the process of a command, once everything is imported: a library has no business with this.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
