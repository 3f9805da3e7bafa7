"""Prompts as token ids: a conversation through the chat template, or the turn after one that was sampled.

A client that trains wants each prompt to begin with all the tokens of the turn before. Rendering the
conversation again does not promise that: text that was sampled as some tokens may be tokenised as others.
So a client may send the ids so far, ``prompt_token_ids``, and only what comes after is rendered::

    rendered   ...<|assistant|> STUB <|end|><|user|>more<|end|><|assistant|>
    prompt     prompt_token_ids      <|end|><|user|>more<|end|><|assistant|>

The end of the turn is put in when the ids do not end with it, because their turn was cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.language_model import LanguageModel
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tools import Tool

Message = dict[str, Any]

_STUB = "latest-reply-3f0c95d1"
"""Stands for the latest reply in the rendered text. Any text would do that no conversation has."""


def compose_prompt(asked: ChatRequest, model: LanguageModel) -> tuple[int, ...]:
    """The token ids that a reply to *asked* is conditioned on.

    A chat template that does not show the latest reply as it is, once, cannot be continued: its whole
    conversation is rendered again.

    Raises:
        Refused: 400, the conversation cannot be rendered, or the ids to continue do not fit to it.
    """
    conversation, tools = asked.conversation(), asked.offered()
    must_call, tool = asked.forced()
    opening = model.vocabulary.convention.opening(tool) if must_call else ""
    if asked.prompt_token_ids is not None:
        assert asked.continuation_from is not None
        before = tuple(asked.prompt_token_ids)
        _check_ids(before, model.vocab_size)
        begin = _first_new(conversation, asked.continuation_from)
        after = _after_reply(conversation, begin, tools, model)
        if after is not None:
            return before + _without_second_end(before, model.vocabulary.encode(after + opening), model)
    return model.vocabulary.render(conversation, tools, opening=opening)


def _check_ids(ids: Sequence[int], vocab_size: int) -> None:
    wrong = next((one for one in ids if not 0 <= one < vocab_size), None)
    if wrong is not None:
        raise Refused(400, f"prompt_token_ids: {wrong} is outside the vocabulary of {vocab_size}")


def _first_new(conversation: Sequence[Message], continuation_from: int) -> int:
    """Index of the first message that the ids do not cover.

    Agents prepend a system message when they send, and do not count it. Whether others in front are
    counted cannot be seen; but the message before the first new one is the latest reply.
    """
    roles = [message["role"] for message in conversation]
    leading = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
    for uncounted in range(leading, -1, -1):
        begin = continuation_from + uncounted
        if begin < len(roles) and roles[begin - 1] == "assistant":
            return begin
    raise Refused(
        400,
        f"continuation_from: {continuation_from} must count up to an assistant message that others follow, "
        f"system messages in front left out; the roles are: {', '.join(roles)}",
    )


def _after_reply(
    conversation: Sequence[Message], begin: int, tools: Sequence[Tool], model: LanguageModel
) -> str | None:
    """What the template writes after the latest reply."""
    stub = {"role": "assistant", "content": _STUB}
    rendered = model.vocabulary.rendered([*conversation[: begin - 1], stub, *conversation[begin:]], tools)
    before, found, after = rendered.rpartition(_STUB)
    return after if found and _STUB not in before else None


def _without_second_end(
    before: Sequence[int], after: tuple[int, ...], model: LanguageModel
) -> tuple[int, ...]:
    """*after* without the end of the turn, if *before* has it already."""
    if before[-1] not in model.eos_ids:
        return after
    end = next((index for index, one in enumerate(after) if one in model.eos_ids), None)
    if end is None or model.vocabulary.text(after[:end], with_markers=True).strip():
        # The template ends turns in no way, or only later ones.
        return after
    return after[end + 1 :]
