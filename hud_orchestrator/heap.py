"""The garbage collector of a process that has many rollouts in flight."""

from __future__ import annotations

import gc

YOUNG = 50_000
"""New objects between two looks at them. A thousand rollouts in flight are some hundred thousand objects that
are no garbage, and Python's 700 has them looked at all the time."""


def settle_heap() -> None:
    """Leave out of collections what is there to stay, which is what was imported, and collect less often.

    For the process of a command, once everything is imported: a library has no business with this.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
