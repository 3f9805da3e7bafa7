"""Configure structlog, and the closed list of what may be logged."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

EVENTS = frozenset(
    {
        # the run
        "run.started",
        "run.resumed",
        "run.config_changed",
        "run.draining",
        "run.aborting",
        "run.ended",
        # the service
        "service.started",
        "service.stopped",
        "model.forked",
        "model.found",
        "request.retried",
        # the pipeline
        "rollout.failed",
        "rollout.retried",
        "group.dropped",
        "group.readmitted",
        "step.taken",
        "step.skipped",
        "step.adopted",
        "step.abandoned",
        "call.repeated",
        "evaluation.finished",
        # environments
        "environment.started",
        "environment.killed",
        # the embedded service
        "base.prepared",
        "engine.loaded",
        "batch.trained",
        "checkpoint.written",
        "checkpoint.discarded",
        "head.set",
        "request.failed",
    }
)
"""Every event name, ``noun.past_tense``. A name that is not here is a bug, and raises."""


def get_logger() -> Any:
    """The logger that every module uses."""
    return structlog.get_logger()


def configure(*, stream: TextIO | None = None, as_json: bool, level: str) -> None:
    """Send every line of at least *level* to *stream*, by default standard error."""
    out = stream or sys.stderr
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=20)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _only_known_events,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if as_json else _pass,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


def wants_json(choice: Literal["auto", "console", "json"]) -> bool:
    """Whether log lines are JSON objects."""
    return choice == "json"


def _only_known_events(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if event["event"] not in EVENTS:
        raise ValueError(f"log event {event['event']!r} is not in logs.EVENTS")
    return event


def _pass(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event
