"""A request for completions, and the sequences that are sampled for it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hud_orchestrator.local.vocabulary import Vocabulary
from hud_orchestrator.local.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen, and when to stop."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]
    seed: int
    choices: int
    alternatives: int = 0
    """How many of the likeliest tokens are told at each position, beside the one that was drawn."""


class Completion:
    """One request: a prompt, and as many sequences as it wants choices, all from one snapshot."""

    def __init__(
        self,
        prompt: Several[int],
        sampling: Sampling,
        *,
        source: Callable[[], Weights],
        progress: Callable[[], None] | None = None,
    ) -> None:
        """Ask for completions of *prompt* from the snapshot that *source* gives when sampling begins.

        *progress*, if there is one, is called by the engine's thread after every token.
        """
        self.prompt = tuple(prompt)
        self.sampling = sampling
        self.done: Future[None] = Future()
        """Resolves when every sequence has ended; its exception says why none of them counts."""
        # A running future cannot be cancelled from outside; the engine alone decides how it ends.
        self.done.set_running_or_notify_cancel()
        self.abandoned = False
        """Set by the event loop when nobody waits any more; the engine then drops the sequences."""
        self.sequences = [Sequence(self, index) for index in range(sampling.choices)]
        self.progress = progress
        self._source: Callable[[], Weights] | None = source
        self.checkpoint: str | None = None
        """Of the snapshot, once sampling has begun."""
        self._weights: Weights | None = None

    @property
    def weights(self) -> Weights:
        """The snapshot, fixed when it is first asked for: at the first sequence's admission."""
        if self._weights is None:
            assert self._source is not None, "the request has ended"
            self._weights = self._source()
            self.checkpoint = self._weights.id
        return self._weights

    def finish(self) -> None:
        """Every sequence has ended."""
        self.release()
        self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the request without a result. Harmless when it has ended."""
        self.abandoned = True
        self.release()
        if not self.done.done():
            self.done.set_exception(error)

    def release(self) -> None:
        """Let the snapshot go: a request and its sequences are a circle, and stay for a while."""
        self._source = self._weights = None


class Sequence:
    """One choice as it grows."""

    def __init__(self, completion: Completion, index: int) -> None:
        self.completion = completion
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.alternatives: list[list[tuple[int, float]]] = []
        """The likeliest tokens at each position and their log-probabilities, where they are wished for."""
        self.finish_reason: Literal["stop", "length"] | None = None
        seed = completion.sampling.seed & (2**64 - 1)
        # From a SeedSequence, not a key: with a key, numpy asks the kernel for entropy as well, unused.
        self._uniforms = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be sampled for it."""
        return self.finish_reason is not None or self.completion.abandoned

    def uniform(self) -> float:
        """The next number of this sequence's own stream, in [0, 1)."""
        return self._uniforms.random()

    def accept(
        self, token_id: int, logprob: float, *, eos_ids: frozenset[int], vocabulary: Vocabulary
    ) -> None:
        """Append a token, and decide whether it is the last. An end-of-turn token is an action too."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        if token_id in eos_ids or self._stopped(vocabulary):
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.completion.sampling.max_tokens:
            self.finish_reason = "length"
        if self.finish_reason and all(one.finish_reason for one in self.completion.sequences):
            self.completion.finish()
        if self.completion.progress is not None:
            self.completion.progress()

    def text(self, vocabulary: Vocabulary, *, with_markers: bool = False) -> str:
        """The text of the tokens, cut before the first stop string."""
        return self.cut(vocabulary.text(self.token_ids, with_markers=with_markers))

    def cut(self, text: str) -> str:
        """*text* before the first stop string."""
        cuts = [at for stop in self.completion.sampling.stop if (at := text.find(stop)) >= 0]
        return text[: min(cuts)] if cuts else text

    def _stopped(self, vocabulary: Vocabulary) -> bool:
        """Whether a stop string has appeared."""
        stops = self.completion.sampling.stop
        if not stops:
            return False
        # Only the end can hold a new one: a character has at most four tokens, and a few more tell
        # where a word begins.
        tail = vocabulary.text(self.token_ids[-4 * max(map(len, stops)) - 8 :])
        return any(stop in tail for stop in stops)
