"""What telemetry told about the steps of each trace, for people who look at it.

In memory only and bounded: when there is too much, the oldest traces lose theirs.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

KEPT_BYTES = 64 * 2**20

_LEFT_OUT = frozenset({"sample", "raw"})
"""Tokens are kept elsewhere, and the rest of a completion nowhere."""


class TraceEvents:
    """The steps of the traces of late. Used by the event loop only."""

    def __init__(self, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._steps: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        """By trace and span."""
        self._num_bytes = 0

    def keep(self, trace_id: str, spans: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Keep the payloads of spans by their ids; one that is told again replaces the first."""
        steps = self._steps.setdefault(trace_id, {})
        for span, payload in spans:
            told = json.dumps({key: payload[key] for key in payload if key not in _LEFT_OUT}).encode()
            self._num_bytes += len(told) - len(steps.get(span, b""))
            steps[span] = told
        while self._num_bytes > self._kept_bytes and len(self._steps) > 1:
            _, oldest = self._steps.popitem(last=False)
            self._num_bytes -= sum(map(len, oldest.values()))

    def of(self, trace_id: str) -> list[dict[str, Any]]:
        """The events of a trace, in the order of its steps, as HUD's SDK reads them."""
        told = self._steps.get(trace_id, {}).values()
        # There is no JSON for a number that is none.
        payloads = [json.loads(one, parse_constant=lambda _: None) for one in told]
        return [_event(payload) for payload in sorted(payloads, key=_order)]


def _order(payload: Mapping[str, Any]) -> int:
    number = payload.get("step_id")
    return number if isinstance(number, int) else 0


def _event(payload: Mapping[str, Any]) -> dict[str, Any]:
    known = ("error", "step_id", "started_at", "ended_at")
    return {**_told(payload), **{key: payload.get(key) for key in known if payload.get(key) is not None}}


def _told(payload: Mapping[str, Any]) -> dict[str, Any]:
    source = payload.get("source")
    if source == "agent":
        calls = payload.get("tool_calls")
        return {
            "kind": "agent_message",
            "text": payload.get("content"),
            "reasoning": payload.get("reasoning"),
            "tool_calls": [_call(one) for one in calls] if isinstance(calls, list) else [],
            "finish_reason": payload.get("finish_reason"),
            "model": payload.get("model"),
            "usage": payload.get("usage"),
        }
    if source == "tool":
        call, result = _call(payload.get("call")), _mapping(payload.get("result"))
        text = _text(result.get("content"))
        return {
            "kind": "tool_call",
            "tool_name": call["name"],
            "arguments": call["arguments"],
            "result_text": text,
            "error": text if result.get("isError") else None,
        }
    if source == "task":
        return {"kind": "task_call", **_mapping(payload.get("task_call"))}
    said = payload.get("messages")
    return {"kind": f"{source}_message", "messages": said if isinstance(said, list) else []}


def _call(call: Any) -> dict[str, Any]:
    """A call whose arguments are an object, whatever the model wrote."""
    known = _mapping(call)
    arguments = known.get("arguments") or {}
    return {
        "id": known.get("id"),
        "name": str(known.get("name") or "?"),
        "arguments": arguments if isinstance(arguments, dict) else {"unparsed": arguments},
    }


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else []
    return "\n".join(str(one.get("text", "")) for one in parts if isinstance(one, dict) and "text" in one)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
