"""Ask a judge for its verdict over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import BaseModel, Field, SecretStr

from hud_orchestrator.clients.retry import Retry
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import JudgeFailed, ServiceError
from hud_orchestrator.graders.rubric import NotAVerdict, instructions, question, verdict
from hud_orchestrator.graders.turns import turn

if TYPE_CHECKING:
    from hud_orchestrator.graders.judge import Judge


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


async def ask(judge: Judge, *, task: str, answer: str) -> tuple[dict[str, float], str]:
    """The score of each criterion, and the reason.

    Raises:
        JudgeFailed: the endpoint is away or refuses, time is up, or no reply was a verdict.
    """
    key = os.environ.get(judge.key_variable, "").strip()
    try:
        with anyio.fail_after(judge.deadline_s):
            async with (
                turn(f"{judge.base_url} {judge.model}", at_once=judge.concurrency),
                Transport(
                    judge.base_url, SecretStr(key) if key else None, key_name=judge.key_variable
                ) as transport,
            ):
                return await _converse(judge, transport, task, answer)
    except TimeoutError:
        raise JudgeFailed(f"the judge {judge.model} gave no verdict in {judge.deadline_s:g} s") from None
    except ServiceError as error:
        raise JudgeFailed(f"the judge {judge.model} gave no verdict: {error}") from error


async def _converse(
    judge: Judge, transport: Transport, task: str, answer: str
) -> tuple[dict[str, float], str]:
    messages = [
        {"role": "system", "content": instructions(judge.rubric)},
        {"role": "user", "content": question(task, answer)},
    ]
    problem = ""
    for _ in range(judge.re_asks + 1):
        reply = await _complete(judge, transport, messages)
        try:
            return verdict(reply, judge.rubric)
        except NotAVerdict as mistake:
            problem = str(mistake)
        again = f"That is not the verdict: {problem}. Reply with only the JSON object."
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": again}]
    raise JudgeFailed(
        f"the judge {judge.model} gave no verdict in {judge.re_asks + 1} replies; of the last one: {problem}"
    )


async def _complete(judge: Judge, transport: Transport, messages: list[dict[str, str]]) -> str:
    body: dict[str, Any] = {
        "model": judge.model,
        "messages": messages,
        "max_tokens": judge.max_tokens,
        "temperature": judge.temperature,
    }
    reply = await transport.read(
        "POST",
        "/chat/completions",
        reply=_Reply,
        retry=Retry(attempts=judge.attempts, first_wait_s=0.5, longest_wait_s=30),
        body=body | dict(judge.extra),
    )
    return reply.choices[0].message.content or ""
