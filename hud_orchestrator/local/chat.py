"""Chat completions: render the prompt, have it sampled, tell what was sampled token by token."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.completion import Completion, Sampling, Sequence
from hud_orchestrator.local.engine import Engine
from hud_orchestrator.local.replies import Refused, parse
from hud_orchestrator.local.seeds import SeedBook
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.vocabulary import Vocabulary

_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()
# Not a random id per reply: the call to the kernel lets go of the interpreter, and the engine's
# thread may keep it for milliseconds.


class Chat:
    """The gateway's one route.

    Returned log-probabilities are of the distribution that was sampled from, after temperature and
    top-p; a trainer compares them with the model's own, so on-policy training wants both at 1. The
    end-of-turn token is sampled too, so it is in ``token_ids`` but not in the text. With a stop
    string, the text ends before it while ids and log-probabilities tell all that was sampled.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seeds = SeedBook(service.settings.seed)

    async def complete(self, request: Request) -> Response:
        """POST ``/chat/completions``."""
        asked = parse(ChatRequest, await request.body(), status=400)
        if asked.stream:
            raise Refused(400, "stream: true is not supported")
        engine, source = await self._service.sampled(asked.model)
        prompt = engine.model.vocabulary.render(asked.conversation())
        completion = Completion(prompt, self._sampling(asked, prompt, engine.model.context), source=source)
        engine.sample(completion)
        await _finish(request, engine, completion)
        return JSONResponse(_reply(asked, completion, engine.model.vocabulary))

    def _sampling(self, asked: ChatRequest, prompt: tuple[int, ...], context: int) -> Sampling:
        room = context - len(prompt)
        if room < 1:
            detail = f"the prompt has {len(prompt)} tokens, the context is {context}, and one token must fit"
            raise Refused(400, detail)
        wanted = asked.max_completion_tokens or asked.max_tokens or room
        temperature = 1.0 if asked.temperature is None else asked.temperature
        top_p = asked.top_p or 1.0
        seed = asked.seed
        if seed is None:
            seed = self._seeds.next(asked.model, prompt, temperature, top_p, wanted, asked.stop)
        return Sampling(
            temperature=temperature,
            top_p=top_p,
            max_tokens=min(wanted, room),
            stop=asked.stops(),
            seed=seed,
            choices=asked.n or 1,
        )


async def _finish(request: Request, engine: Engine, completion: Completion) -> None:
    """Wait for the completion, or withdraw it when its client goes away."""
    done = asyncio.wrap_future(completion.done)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise Refused(499, "the client has gone away")
        done.result()
    finally:
        gone.cancel()
        if not completion.done.done():
            engine.withdraw(completion)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reply(asked: ChatRequest, completion: Completion, vocabulary: Vocabulary) -> dict[str, Any]:
    sampled = sum(len(sequence.token_ids) for sequence in completion.sequences)
    return {
        "id": f"chatcmpl-{_PROCESS}-{next(_numbers)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": completion.weights.id,
        "choices": [
            _choice(index, sequence, asked, vocabulary) for index, sequence in enumerate(completion.sequences)
        ],
        "usage": {
            "prompt_tokens": len(completion.prompt),
            "completion_tokens": sampled,
            "total_tokens": len(completion.prompt) + sampled,
        },
    }


def _choice(index: int, sequence: Sequence, asked: ChatRequest, vocabulary: Vocabulary) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": sequence.text(vocabulary)},
        "finish_reason": sequence.finish_reason,
        "logprobs": None,
    }
    if asked.logprobs:
        choice["logprobs"] = {
            "content": [
                {"token": vocabulary.token(token), "logprob": logprob, "bytes": None, "top_logprobs": []}
                for token, logprob in zip(sequence.token_ids, sequence.logprobs, strict=True)
            ]
        }
    if asked.return_token_ids:
        choice["prompt_token_ids"] = sequence.completion.prompt
        choice["token_ids"] = sequence.token_ids
    return choice
