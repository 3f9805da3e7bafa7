"""Continuous batching: sequences of one snapshot are decoded together, and come and go between steps.

    waiting --admit--> batch of its snapshot --step--> one token for every row of one batch
                       prefill, first token            ended and abandoned rows leave at once

A promotion makes a new snapshot and so a new batch; the old one goes on until its rows have ended.
Batches take turns. ``submit`` and ``withdraw`` are called by the event loop, the rest by the engine's
thread.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence as Several

import torch
from torch import Tensor
from transformers import DynamicCache

from hud_orchestrator.local.completion import Completion, Sequence
from hud_orchestrator.local.draw import draw
from hud_orchestrator.local.kv_cache import RaggedCache
from hud_orchestrator.local.language_model import LanguageModel
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.weights import Weights
from hud_orchestrator.logs import get_logger

log = get_logger()

RETRY_AFTER_S = 2
"""What a client is told to wait when the queue is full."""

HOLD_STEPS = 4
"""Steps that waiting sequences are held back at most while few places are free. A prefill costs about
as much as a step, whether for one prompt or for ten, so a full batch takes them several at a time."""


class Sampler:
    """The sequences that wait and the batches that run, for one language model."""

    def __init__(self, model: LanguageModel, *, max_batch: int, max_queue: int, prefill_tokens: int) -> None:
        """Decode up to *max_batch* rows in all; prefill up to *prefill_tokens* padded tokens at once."""
        self._model = model
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._prefill_tokens = prefill_tokens
        self._lock = threading.Lock()
        self._waiting: deque[Sequence] = deque()
        self._batches: deque[_Batch] = deque()
        self._held = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to step."""
        return bool(self._waiting or self._batches)

    def load(self) -> tuple[int, int]:
        """Sequences that are being decoded, and sequences that wait."""
        running = [row for batch in list(self._batches) for row in list(batch.rows) if not row.ended]
        return len(running), len(self._waiting)

    def submit(self, completion: Completion) -> None:
        """Queue a request.

        Raises:
            Refused: 503, the queue is full.
        """
        with self._lock:
            if len(self._waiting) + len(completion.sequences) > self._max_queue:
                detail = f"the queue is full: {len(self._waiting)} of at most {self._max_queue} wait"
                raise Refused(503, detail, retry_after_s=RETRY_AFTER_S)
            self._waiting.extend(completion.sequences)

    def withdraw(self, completion: Completion) -> None:
        """Forget a request; rows that run leave their batch before its next step."""
        completion.abandoned = True
        with self._lock:
            self._waiting = deque(one for one in self._waiting if one.completion is not completion)
        completion.release()

    def step(self) -> None:
        """Let waiting sequences in, then decode one token for each row of one batch."""
        with torch.inference_mode():
            for joiners in self._admit():
                self._prefill(joiners.weights, joiners.sequences)
            if self._batches:
                self._guarded(self._batches[0])
                self._batches.rotate(-1)
                self._batches = deque(batch for batch in self._batches if batch.rows)

    def fail_all(self, error: Exception) -> None:
        """End every request."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for sequence in [*waiting, *(row for batch in self._batches for row in batch.rows)]:
            sequence.completion.fail(error)
        self._batches.clear()

    def _admit(self) -> list[_Joiners]:
        """Take from the front of the queue what fits now, grouped by snapshot."""
        room = self._max_batch - sum(len(batch.rows) for batch in self._batches)
        if room < self._max_batch // 8 and self._held < HOLD_STEPS:
            self._held += 1
            return []
        self._held = 0
        groups: dict[int, _Joiners] = {}
        with self._lock:
            while self._waiting and room > 0:
                if self._waiting[0].ended:
                    # Another choice of its request has failed.
                    self._waiting.popleft()
                    continue
                completion = self._waiting[0].completion
                group = groups.setdefault(id(completion.weights), _Joiners(completion.weights))
                if group.sequences and group.tokens_with(completion) > self._prefill_tokens:
                    break
                group.add(self._waiting.popleft())
                room -= 1
        return list(groups.values())

    def _prefill(self, weights: Weights, joiners: list[Sequence]) -> None:
        batch = next((one for one in self._batches if one.weights is weights), None)
        if batch is None:
            batch = _Batch(self._model, weights)
        try:
            batch.join(joiners)
        except Exception as error:
            self._report(error, [*joiners, *batch.rows])
            batch.rows.clear()
        if batch.rows and batch not in self._batches:
            self._batches.append(batch)

    def _guarded(self, batch: _Batch) -> None:
        try:
            batch.step()
        except Exception as error:
            self._report(error, batch.rows)
            batch.rows.clear()

    def _report(self, error: Exception, sequences: Several[Sequence]) -> None:
        # A fault of one batch must not end the engine.
        log.error("request.failed", stage="sampling", error=f"{type(error).__name__}: {error}")
        for sequence in sequences:
            sequence.completion.fail(Refused(500, f"sampling failed: {type(error).__name__}: {error}"))


class _Joiners:
    """Sequences of one snapshot that are prefilled together, each distinct prompt once."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.sequences: list[Sequence] = []
        # By identity, which is cheap: equal prompts that are different objects only count twice.
        self._prompts: dict[int, int] = {}

    def tokens_with(self, completion: Completion) -> int:
        """Padded tokens of the prefill if *completion* joined."""
        lengths = {**self._prompts, id(completion.prompt): len(completion.prompt)}
        return len(lengths) * max(lengths.values())

    def add(self, sequence: Sequence) -> None:
        """Take a sequence in."""
        prompt = sequence.completion.prompt
        self._prompts[id(prompt)] = len(prompt)
        self.sequences.append(sequence)


class _Batch:
    """Rows that are decoded together: they share a snapshot and a cache."""

    def __init__(self, model: LanguageModel, weights: Weights) -> None:
        self.weights = weights
        self.rows: list[Sequence] = []
        self._model = model
        self._cache = RaggedCache()

    def join(self, joiners: list[Sequence]) -> None:
        """Prefill, each distinct prompt once, and draw the joiners' first tokens."""
        prompts = list(dict.fromkeys(one.completion.prompt for one in joiners))
        width = max(map(len, prompts))
        padded = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
        ends = torch.tensor([row * width + len(prompt) - 1 for row, prompt in enumerate(prompts)])
        prefilled, device = DynamicCache(), self._model.device
        logits = self._model.logits(self.weights.tensors, padded.to(device), ends.to(device), cache=prefilled)
        sources = [prompts.index(one.completion.prompt) for one in joiners]
        self._cache.join(prefilled, sources, [len(one.completion.prompt) for one in joiners])
        self.rows += joiners
        self._extend(joiners, logits[sources])
        self._drop_ended()

    def step(self) -> None:
        """Decode one token for every row."""
        self._drop_ended()
        if not self.rows:
            return
        device = self._model.device
        mask, positions = self._cache.masks(device)
        last = torch.tensor([[row.token_ids[-1]] for row in self.rows], device=device)
        everyone = torch.arange(len(self.rows), device=device)
        logits = self._model.logits(
            self.weights.tensors,
            last,
            everyone,
            cache=self._cache.past,
            attention_mask=mask,
            position_ids=positions,
        )
        self._cache.advance()
        self._extend(self.rows, logits)
        self._drop_ended()

    def _extend(self, rows: Several[Sequence], logits: Tensor) -> None:
        """Draw a token for each of *rows* from its row of *logits*. Shape [len(rows), V]."""
        wishes = [row.completion.sampling for row in rows]
        uniforms = torch.tensor([row.uniform() for row in rows], dtype=torch.float32, device=logits.device)
        temperatures = torch.tensor([wish.temperature for wish in wishes], device=logits.device)
        top_ps = torch.tensor([wish.top_p for wish in wishes], device=logits.device)
        tokens, logprobs, distributions = draw(logits, uniforms, temperatures, top_ps)
        for index, row in enumerate(rows):
            if row.completion.sampling.alternatives:
                row.alternatives.append(
                    _likeliest(distributions[index], row.completion.sampling.alternatives)
                )
        sound = logprobs.isfinite().tolist()
        for row, token, logprob, is_sound in zip(
            rows, tokens.tolist(), logprobs.tolist(), sound, strict=True
        ):
            if not is_sound:
                detail = (
                    f"checkpoint {self.weights.id} gives probabilities that are not finite; it has diverged"
                )
                row.completion.fail(Refused(409, detail))
            elif not row.completion.abandoned:
                row.accept(token, logprob, eos_ids=self._model.eos_ids, vocabulary=self._model.vocabulary)

    def _drop_ended(self) -> None:
        for index in range(len(self.rows) - 1, -1, -1):
            if self.rows[index].ended:
                self._cache.leave(index)
                self.rows[index] = self.rows[-1]
                self.rows.pop()


def _likeliest(logprobs_V: Tensor, count: int) -> list[tuple[int, float]]:
    """Up to *count* tokens that can be drawn at all, the likeliest first."""
    values, tokens = logprobs_V.topk(min(count, len(logprobs_V)))
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return [(token, logprob) for token, logprob in pairs if math.isfinite(logprob)]
