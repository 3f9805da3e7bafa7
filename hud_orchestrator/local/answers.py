"""Chat completions as OpenAI's clients read them, with the token ids that trainers need."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.completion import Completion, Sequence
from hud_orchestrator.local.spoken import Listener
from hud_orchestrator.local.vocabulary import Vocabulary

_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()
# Not a random id per reply: the call to the kernel lets go of the interpreter, and the engine's
# thread may keep it for milliseconds.


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told about one completion."""

    asked: ChatRequest
    completion: Completion
    vocabulary: Vocabulary
    listener: Listener
    id: str = field(default_factory=lambda: f"chatcmpl-{_PROCESS}-{next(_numbers)}")

    def whole(self) -> dict[str, Any]:
        """The reply to a request that does not stream."""
        choices = [self._choice(index, one) for index, one in enumerate(self.completion.sequences)]
        return self.head("chat.completion") | {"choices": choices, "usage": self.usage()}

    def head(self, kind: str) -> dict[str, Any]:
        """What a reply and each of its chunks begin with. Sampling must have begun."""
        return {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": self.asked.model,
            "system_fingerprint": self.completion.checkpoint,
        }

    def usage(self) -> dict[str, int]:
        """Tokens; the prompt counts once, however many choices there are."""
        prompt = len(self.completion.prompt)
        sampled = sum(len(sequence.token_ids) for sequence in self.completion.sequences)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": sampled,
            "total_tokens": prompt + sampled,
        }

    def tokens(self, sequence: Sequence) -> dict[str, Any]:
        """Log-probabilities and token ids of a choice, as far as they are wished for."""
        told: dict[str, Any] = {"logprobs": None}
        if self.asked.logprobs:
            told["logprobs"] = {"content": self._logprobs(sequence)}
        if self.asked.return_token_ids:
            told["prompt_token_ids"] = sequence.completion.prompt
            told["token_ids"] = sequence.token_ids
        return told

    def _choice(self, index: int, sequence: Sequence) -> dict[str, Any]:
        message = self.listener.message(sequence, index)
        return {
            "index": index,
            "message": message.as_dict(),
            "finish_reason": message.finish_reason,
            **self.tokens(sequence),
        }

    def _logprobs(self, sequence: Sequence) -> list[dict[str, Any]]:
        none: list[tuple[int, float]] = []
        alternatives = sequence.alternatives or itertools.repeat(none)
        return [
            self._token(token, logprob) | {"top_logprobs": [self._token(*other) for other in others]}
            for token, logprob, others in zip(
                sequence.token_ids, sequence.logprobs, alternatives, strict=False
            )
        ]

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self.vocabulary.token(token), "logprob": logprob, "bytes": None}
