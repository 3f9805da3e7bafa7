"""Whose a checkpoint is, by its learning rate, where the service gives no leases.

Each ``optim_step`` of a run without leases asks for a rate that has a signature of its batch in its last bits
(:func:`hud_orchestrator.rules.settlement.signed`). Whether the service tells a rate back as it was asked for,
the steps that were answered say: their checkpoints are the run's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hud_orchestrator.single_writer import SingleWriter
from hud_orchestrator.store.history import History
from hud_orchestrator.store.ledger import Ledger, PlannedStep
from hud_orchestrator.wire import Checkpoint

AGREE = "rates_agree"
"""The fact of how many answered steps have had their very rate, or ``NO``."""

NO = "no"
"""One has had another rate: the service rounds."""

TELLING = 8
"""Answered steps with their very rate after which nobody believes in chance: a service that tells 16 digits
tells one rate in five to the last bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRates:
    """What the learning rates of one run's checkpoints tell."""

    ledger: Ledger
    history: History
    writer: SingleWriter

    async def tell(self, step: PlannedStep) -> bool:
        """Whether a checkpoint with another rate is not that of *step*."""
        # What an answer names is the step's, whatever its rate.
        return step.checkpoint is None and await self._agreed() > 0 and await self.writer.never_fenced()

    async def learn(self, step: PlannedStep, node: Checkpoint) -> None:
        """Note whether *node*, which is the checkpoint of *step*, tells the rate that was asked for."""
        answered = step.checkpoint is not None and node.learning_rate is not None
        if not answered or not await self.writer.never_fenced():
            return
        agreed = await self._agreed()
        if node.learning_rate != step.learning_rate:
            await self.history.set(AGREE, NO)
        elif agreed < TELLING and await self.history.get(AGREE) != NO:
            await self.history.set(AGREE, str(agreed + 1))

    async def unasked(self, tree: Sequence[Checkpoint], *, before: set[str]) -> set[str]:
        """Checkpoints with a rate that no step of this run has asked for: those are somebody else's.

        Args:
            tree: the model's checkpoints.
            before: the ones that it had when the run began.
        """
        if await self._agreed() < TELLING or not await self.writer.never_fenced():
            return set()
        # Also what was put beside the history, or taken for a step of this run, before the rates told.
        ours = before | await self.ledger.answered()
        rates = {node.id: node.learning_rate for node in tree if node.id not in ours}
        asked = await self.ledger.asked_for({rate for rate in rates.values() if rate is not None})
        return {made for made, rate in rates.items() if rate is not None and rate not in asked}

    async def _agreed(self) -> int:
        agree = await self.history.get(AGREE) or "0"
        return int(agree) if agree.isdecimal() else 0
