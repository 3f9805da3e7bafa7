"""Chat completions: render the prompt, have it sampled, tell what was sampled token by token."""

from __future__ import annotations

import asyncio

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hud_orchestrator.local.answers import Answer
from hud_orchestrator.local.bodies import read_body
from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.completion import Completion, Sampling
from hud_orchestrator.local.continuation import compose_prompt
from hud_orchestrator.local.engine import Engine
from hud_orchestrator.local.once import digest_of
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.seeds import SeedBook
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.spoken import Listener
from hud_orchestrator.local.streaming import Bell, EventStream
from hud_orchestrator.wire import TrajectorySample


class Chat:
    """The gateway's one route.

    Returned log-probabilities are of the distribution that was sampled from, after temperature and
    top-p; a trainer compares them with the model's own, so on-policy training wants both at 1. The
    end-of-turn token is sampled too, so it is in ``token_ids`` but not in the text. With a stop
    string, the text ends before it while ids and log-probabilities tell all that was sampled. The same
    holds for tool calls, and the opening of a call that the request forces is part of the prompt.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seeds = SeedBook(service.settings.seed)

    async def complete(self, request: Request) -> Response:
        """POST ``/chat/completions``."""
        asked, body = await read_body(request, ChatRequest, wrong=400)
        engine, source = await self._service.sampled(asked.model, asked.checkpoint)
        prompt = compose_prompt(asked, engine.model)
        bell = Bell() if asked.stream else None
        completion = Completion(
            prompt,
            self._sampling(asked, prompt, engine.model.context),
            source=source,
            progress=bell.ring if bell else None,
        )
        vocabulary = engine.model.vocabulary
        answer = Answer(asked, completion, vocabulary, Listener(asked, vocabulary))

        async def delivered() -> None:
            self._record(request, body, completion)

        engine.sample(completion)
        if bell is not None:
            return EventStream(
                answer, bell, delivered=delivered, withdraw=lambda: engine.withdraw(completion)
            )
        await _finish(request, engine, completion)
        return JSONResponse(answer.whole(), background=BackgroundTask(delivered))

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
            alternatives=asked.top_logprobs or 0,
        )

    def _record(self, request: Request, body: bytes, completion: Completion) -> None:
        """Keep a delivered turn under its trace: the first choice, for that is the one that agents read."""
        trace_id = request.headers.get("Trace-Id")
        if not trace_id:
            return
        first = completion.sequences[0]
        sample = TrajectorySample.model_construct(
            prompt_token_ids=list(completion.prompt),
            output_token_ids=first.token_ids,
            output_logprobs=first.logprobs,
        )
        self._service.traces.record(trace_id, sample, request=digest_of(body))


async def _finish(request: Request, engine: Engine, completion: Completion) -> None:
    """Wait for the completion, or withdraw it when its client goes away."""
    done = asyncio.wrap_future(completion.done)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise Refused(499, "the client has gone away")
        done.result()
    finally:
        gone.cancel()
        if not completion.done.done():
            engine.withdraw(completion)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
