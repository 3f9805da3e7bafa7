"""Configure structlog, and the closed list of what may be logged."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

import structlog
from structlog.typing import Processor

Event = MutableMapping[str, Any]

EVENTS = frozenset(
    {
        # the run
        "run.started",
        "run.resumed",
        "run.config_changed",
        "run.draining",
        "run.aborting",
        "run.ended",
        "store.migrated",
        # the service
        "service.started",
        "service.stopped",
        "service.waiting",
        "model.awaited",
        "model.forked",
        "model.found",
        "lease.taken",
        "lease.awaited",
        "lease.unconfirmed",
        "request.retried",
        "gateway.paused",
        "gateway.resumed",
        # the pipeline
        "dispatch.paused",
        "dispatch.resumed",
        "rollout.failed",
        "rollout.retried",
        "rollout.not_cancelled",
        "group.dropped",
        "member.dropped",
        "group.readmitted",
        "step.taken",
        "step.skipped",
        "step.not_finite",
        "step.adopted",
        "step.abandoned",
        "step.unsettled",
        "head.regained",
        "rollback.begun",
        "rollback.finished",
        "rollback.refused",
        "guard.fired",
        "guard.blind",
        "call.repeated",
        "batch.without_spread",
        "curriculum.changed",
        "evaluation.finished",
        # reporting
        "report.dropped",
        # environments
        "environment.started",
        "environment.killed",
        "environment.not_returned",
        "container.left",
        "guest.lingering",
        "guest.left_badly",
        "guest.abandoned",
        # the embedded service
        "engine.loaded",
        "batch.trained",
        "checkpoint.written",
        "checkpoint.discarded",
        "checkpoint.pruned",
        "head.set",
        "rollout.hosted",
        "environment.leased",
        "environment.returned",
        "request.failed",
    }
)
"""Every event name, ``noun.past_tense``. A name that is not here is a bug, and raises."""


def get_logger() -> Any:
    """The logger that every module uses."""
    return structlog.get_logger()


def configure(*, stream: TextIO | None, as_json: bool, level: str) -> None:
    """Send every line of at least *level* to *stream*; to no stream at all when it is ``None``."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _only_known_events,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _sinks.copy_to_file,
            *_rendered(stream, as_json=as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream and cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )


def copy_to(path: Path | None) -> None:
    """Append every line as a JSON object to *path* too; ``None`` ends that."""
    _sinks.open(path)


class _Unfailing:
    """A stream that a run does not end with: its disk may be full, or its reader gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Sinks:
    """The file that lines are copied to."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._json = structlog.processors.JSONRenderer()

    def open(self, path: Path | None) -> None:
        if self._file is not None:
            # What a full disk has kept from it is tried again here.
            with suppress(OSError):
                self._file.close()
        self._file = None if path is None else path.open("a", encoding="utf-8", buffering=1)

    def copy_to_file(self, logger: Any, method: str, event: Event) -> Event:
        if self._file is not None:
            # A full disk must not end a run whose store still has room.
            with suppress(OSError):
                self._file.write(str(self._json(logger, method, dict(event))) + "\n")
        return event


_sinks = _Sinks()


def _rendered(stream: TextIO | None, *, as_json: bool) -> list[Processor]:
    if stream is None:
        return [_dropped]
    if as_json:
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=20)]


def _only_known_events(_logger: Any, _method: str, event: Event) -> Event:
    if event["event"] not in EVENTS:
        raise ValueError(f"log event {event['event']!r} is not in logs.EVENTS")
    return event


def _dropped(_logger: Any, _method: str, _event: Event) -> Event:
    raise structlog.DropEvent
