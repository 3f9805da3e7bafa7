"""The steps of a rollout as HUD's telemetry takes them: spans of the schema ``hud.step.v1``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from hud_orchestrator.records import Rollout, Sample
from hud_orchestrator.steps import EpisodeStep, Source

SPANS_PER_UPLOAD = 100
BYTES_PER_UPLOAD = 4 * 2**20
"""Both are what HUD's own SDK keeps to."""

_USAGE = ("prompt_tokens", "completion_tokens")


def uploads(rollout: Rollout, *, tokens: bool) -> Iterator[list[dict[str, Any]]]:
    """The spans of *rollout*, in lists that one upload may hold."""
    upload: list[dict[str, Any]] = []
    size = 0
    for number, step in enumerate(rollout.steps, start=1):
        span = _span(rollout, number, step, tokens=tokens)
        # Estimated, for encoding everything twice would cost more than an upload that is a bit smaller.
        weight = _weight(step, span["attributes"]["hud.payload"].get("sample"))
        if upload and (len(upload) == SPANS_PER_UPLOAD or size + weight > BYTES_PER_UPLOAD):
            yield upload
            upload, size = [], 0
        upload.append(span)
        size += weight
    if upload:
        yield upload


def _weight(step: EpisodeStep, sample: Mapping[str, Any] | None) -> int:
    """About how many bytes the step takes; ids and log-probabilities have up to 7 and 21 digits."""
    text = sum(len(str(value)) for value in (step.messages, step.content, step.reasoning, step.tool_calls))
    ids = 0 if sample is None else 8 * len(sample["prompt_token_ids"]) + 30 * len(sample["output_token_ids"])
    return 1000 + 2 * (text + len(str(step.result or ""))) + ids


def _span(rollout: Rollout, number: int, step: EpisodeStep, *, tokens: bool) -> dict[str, Any]:
    began, ended = _moment(rollout.began_at + step.began), _moment(rollout.began_at + step.ended)
    payload = {
        "step_id": number,
        "source": step.source.value,
        **_payload(rollout, step),
        "started_at": began,
        "ended_at": ended,
    }
    if tokens and step.sample is not None:
        payload["sample"] = _sample(rollout.samples[step.sample])
    return {
        "name": f"step.{step.source.value}",
        "trace_id": rollout.trace_id,
        # The same for a span that is sent again, so that a service may notice.
        "span_id": f"{rollout.trace_id[:8]}{number:08x}",
        "kind": "INTERNAL",
        "start_time": began,
        "end_time": ended,
        "status_code": "ERROR" if step.error else "OK",
        "events": [],
        "attributes": {
            "hud.schema": "hud.step.v1",
            "hud.task_run_id": rollout.trace_id,
            "hud.payload": {key: value for key, value in payload.items() if value is not None},
        },
    }


def _payload(rollout: Rollout, step: EpisodeStep) -> dict[str, Any]:
    if step.source is Source.USER:
        return {"messages": [part for message in step.messages for part in _prompt_messages(message)]}
    if step.source is Source.AGENT:
        return {
            "content": step.content,
            "reasoning": step.reasoning,
            "tool_calls": [_call(call) for call in step.tool_calls],
            "done": not step.tool_calls,
            "finish_reason": step.finish_reason,
            "model": step.model,
            "usage": step.usage and {key: step.usage.get(key) for key in _USAGE},
        }
    if step.source is Source.TOOL:
        return {"call": step.call and _call(step.call), "result": step.result}
    if step.source is Source.TASK:
        name, grade = rollout.ticket.task.id, rollout.grade and dict(rollout.grade)
        return {"task_call": {"phase": "evaluate", "name": name, "result": grade}}
    return {"error": step.error}


def _prompt_messages(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The message as MCP has it: one part each, and no role besides these two."""
    role = "assistant" if message.get("role") == "assistant" else "user"
    content = message.get("content") or ""
    for part in content if isinstance(content, list) else [{"type": "text", "text": str(content)}]:
        yield {"role": role, "content": part}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments as an object, where what the model wrote is one."""
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        arguments = None
    return {**call, "arguments": arguments if isinstance(arguments, dict) else call["arguments"]}


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "prompt_token_ids": sample.prompt_token_ids,
        "output_token_ids": sample.output_token_ids,
        "output_logprobs": sample.logprobs,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
