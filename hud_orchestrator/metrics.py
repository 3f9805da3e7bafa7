"""What is counted while a run goes on: one scoreboard, read by the live view and the summary."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hud_orchestrator.errors import StateUnwritable
from hud_orchestrator.records import Outcome, Rollout, Step

RATE_WINDOW_S = 10.0
"""Seconds over which tokens per second are averaged."""


class MetricsFile:
    """One JSON object per line, appended: ``{"kind": "step", ...}``.

    Kinds are ``step``, ``evaluation``, ``guard``, and ``rollback``, after which steps are counted from its
    ``step`` on once more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mend: str | None = None

    def written(self) -> tuple[int, set[int]]:
        """What the lines tell of the run as it stands: its last step, and the versions evaluated."""
        step, evaluated = 0, set[int]()
        for line in self._lines():
            if line["kind"] == "step":
                step = line["step"]
            elif line["kind"] == "evaluation":
                evaluated.add(line["step"])
            elif line["kind"] == "rollback":
                step = min(step, line["step"])
            # A kill may have cost the line about the rollback; then the step that comes again tells.
            evaluated = {version for version in evaluated if version <= step}
        return step, evaluated

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            with suppress(ValueError):  # in part
                yield json.loads(line)

    def _line_break(self) -> str:
        """A line break, when a killed run has left its last line in part."""
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return "" if file.read(1) == b"\n" else "\n"
        except OSError:  # there is no file yet, or it is empty
            return ""

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line, whole or not at all as far as one ``write`` is."""
        if self._mend is None:
            self._mend = self._line_break()
        line = self._mend + json.dumps(dict(record), separators=(",", ":"), allow_nan=False) + "\n"
        self._mend = ""
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise StateUnwritable(f"{self._path}: cannot be written: {error.strerror}") from error


class Scoreboard:
    """Counters and curves of a run, written by the stages and read by anybody."""

    def __init__(self, *, total_steps: int, metrics: MetricsFile | None = None) -> None:
        self.total_steps = total_steps
        self.first_step = 0
        """The step that this session began after."""
        self.step = 0
        self.phase = "starting"
        self.rewards: list[float] = []
        """Mean training reward of every step, this session's and earlier ones'."""
        self.evaluations: list[tuple[int, float]] = []
        """Policy version and held-out reward."""
        self.evaluating: tuple[int, int] | None = None
        """Attempts done and planned of an evaluation under way."""
        self.outcomes: Counter[Outcome] = Counter()
        self.failed = 0
        """Rollouts without a grade."""
        self.reports: Counter[str] = Counter()
        """Traces that the service was told about, and those that it was not, over all sessions."""
        self.flying = 0
        self.paused: str | None = None
        """Why no attempt may begin at the moment."""
        self.begun: Callable[[], Collection[int]] = tuple
        """Numbers of the groups that are begun and not over, those of the step in hand included."""
        self.gauges: dict[str, Callable[[], float]] = {}
        """Numbers that are read when a step ends."""
        self.staleness = 0.0
        self.tokens = 0
        self.training_since: float | None = None
        self.curriculum: Mapping[str, float] | None = None
        """Tasks that are new, learning, solved and hopeless, when a curriculum looks at that."""
        self._recent: deque[tuple[float, int]] = deque()
        self._metrics = metrics

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a rollout while it runs."""
        self.flying += 1
        try:
            yield
        finally:
            self.flying -= 1

    def rollout_ended(self, rollout: Rollout) -> None:
        """Count a training rollout."""
        self.outcomes[rollout.outcome] += 1
        self.failed += rollout.reward is None
        self.tokens += rollout.num_tokens
        self._recent.append((time.monotonic(), rollout.num_tokens))

    def step_ended(self, step: Step) -> None:
        """Count a step and write its line."""
        self.step = step.number
        self.rewards.append(step.metrics["reward_mean"])
        self.staleness = step.metrics["staleness_max"]
        self.record(
            {
                **step.metrics,
                **{name: round(read(), 4) for name, read in self.gauges.items()},
                "kind": "step",
                "step": step.number,
                "checkpoint": step.policy.checkpoint,
                "skipped": step.skipped,
                "learning_rate": step.learning_rate,
                "seconds": round(step.seconds, 4),
                "tokens_per_second": round(self.tokens_per_second, 1),
                "dropped": {str(k): v for k, v in step.batch.dropped.items()},
                "outcomes": {str(k): v for k, v in self.outcomes.items()},
                "reports": dict(self.reports),
                **({"curriculum": dict(self.curriculum)} if self.curriculum is not None else {}),
            }
        )

    def record(self, line: Mapping[str, Any]) -> None:
        """Write a line of metrics, with the time; a number that is not finite is ``null`` there."""
        if self._metrics is not None:
            wild = {
                name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)
            }
            self._metrics.append({"time": round(time.time(), 3), **line, **dict.fromkeys(wild)})

    def written(self) -> tuple[int, set[int]]:
        """See ``MetricsFile``; nothing is missing where nothing is written."""
        return self._metrics.written() if self._metrics is not None else (self.step, set())

    @property
    def tokens_per_second(self) -> float:
        """Tokens of rollouts that ended in the last seconds, per second."""
        now = time.monotonic()
        while self._recent and self._recent[0][0] < now - RATE_WINDOW_S:
            self._recent.popleft()
        return sum(tokens for _, tokens in self._recent) / RATE_WINDOW_S

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step at this session's pace, ``None`` before its first step."""
        done = self.step - self.first_step
        if self.training_since is None or done < 1:
            return None
        return (time.monotonic() - self.training_since) / done * (self.total_steps - self.step)

    @property
    def cut_short(self) -> int:
        """Rollouts whose agent the deadline stopped and whose work was graded."""
        return self.outcomes[Outcome.CUT_SHORT]
