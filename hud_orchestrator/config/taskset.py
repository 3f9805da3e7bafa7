"""The section about what is attempted."""

from __future__ import annotations

from hud_orchestrator.config.section import Section


class TasksetSection(Section):
    """What is attempted.

    A taskset is a ``.json``, ``.jsonl`` or ``.py`` file, relative to the run file; ``file.py:name``
    picks one module-level list of tasks. ``reasoning-gym:chain_sum?size=500`` is part of a task library.
    """

    train: str
    """The tasks that are trained on."""

    heldout: str | None = None
    """The tasks that evaluation uses. Left out: no evaluation."""

    shuffle: bool = True
    """Visit the training tasks in a new random order each epoch, derived from the seed."""
