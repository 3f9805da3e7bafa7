"""Guards on a run that goes on: what they see after each step and evaluation, and what they do.

All that a guard remembers is in the store: figures with the steps, firings in a table of their own. So a
start, and a rollback, begin from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.logs import get_logger
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Step, Target
from hud_orchestrator.rewinding import line_of
from hud_orchestrator.rules.guards import (
    EVAL_REWARD,
    FIGURES,
    GuardRule,
    Point,
    figure,
    lowered,
    reach,
    tripped,
)
from hud_orchestrator.rules.rollback import Line, best
from hud_orchestrator.store.firings import Firing
from hud_orchestrator.store.store import Store

FARTHEST = 100
"""Steps, at most, that are kept before the head for guards, and as many before the best checkpoint: a header
of each step names them, and servers on its way may take no more than 8 KB of that."""

log = get_logger()


class Watch:
    """The guards of one run, and the ear for rollbacks that a person asks for."""

    def __init__(self, rules: Sequence[GuardRule], *, store: Store, board: Scoreboard) -> None:
        self._rules = rules
        self._store = store
        self._board = board
        self._points: dict[str, list[Point]] = {}
        self._taken_at: dict[int, int] = {}
        self._taken = 0
        self._fired: list[Firing] = []
        self._blind: set[str] = set()
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether a guard has paused the run since it began."""
        return self._paused

    @property
    def scale(self) -> float:
        """What the learning rate is multiplied by."""
        return self._fired[-1].scale if self._fired else 1.0

    async def load(self) -> None:
        """Begin from what the store has; also after a rollback."""
        self._fired = await self._store.firings.all()
        self._points, self._taken_at = {}, {0: 0}
        for step in await self._store.history.steps():
            self._note(step.number, step.taken, step.metrics)
        self._taken = await self._store.history.taken()

    def saw(self, step: Step) -> None:
        """Take the figures of a step in that is over."""
        self._taken += 1
        self._note(step.number, self._taken, step.metrics)
        for rule in self._rules:
            if not step.skipped and rule.metric not in self._points and rule.metric != EVAL_REWARD:
                self._say_blind(rule, step)

    async def objects(self) -> bool:
        """Let guards fire on the newest figures; whether the stages have to end, for them or for a person."""
        firing: list[tuple[Firing, Target | None]] = []
        for rule in self._rules:
            points = self._points_of(rule.metric)
            fired = next((one for one in reversed(self._fired) if one.guard == rule.name), None)
            at, on = (None, None) if fired is None else (fired.taken, fired.step)
            detail = tripped(rule, points, fired_at=at, fired_on=on)
            if detail is not None:
                firing.append(await self._firing(rule, points[-1], detail))
        if firing:
            # Together: what one of them does must not keep a kill's next start from what the others do.
            await self._store.firings.fire(firing)
            for one, _ in firing:
                self._tell(one)
        return self._paused or await self._store.rollbacks.asked() is not None

    async def kept(self) -> set[str]:
        """Checkpoints that the next step must not cost: the best one, and what may be gone back to.

        The head is among them: the next step is settled by going back to it.
        """
        line, asked = await line_of(self._store.history), await self._store.rollbacks.asked()
        top = self._best(line)
        targets = {one.checkpoint for one in (top, asked.target if asked else None) if one is not None}
        # What one guard goes back to, another one may go back from.
        farthest = min(FARTHEST, sum(reach(rule, gone_back=self._gone_back(rule)) for rule in self._rules))
        kept = targets | line.window(line.last, steps=max(1, farthest))
        return kept if top is None else kept | line.window(top.step, steps=farthest)

    def _gone_back(self, rule: GuardRule) -> int:
        return sum(one.guard == rule.name and one.went_back for one in self._fired)

    def _best(self, line: Line) -> Target | None:
        rewards = {point.step: point.value for point in self._points.get("reward_mean", [])}
        return best(line, evaluations=dict(self._board.evaluations), rewards=rewards)

    def _points_of(self, metric: str) -> list[Point]:
        if metric != EVAL_REWARD:
            return self._points.get(metric, [])
        return [
            Point(step=version, taken=self._taken_at[version], value=reward)
            for version, reward in self._board.evaluations
        ]

    def _note(self, step: int, taken: int, metrics: Mapping[str, float]) -> None:
        self._taken_at[step] = taken
        for metric in FIGURES:
            value = figure(metric, metrics)
            if value is not None:
                self._points.setdefault(metric, []).append(Point(step=step, taken=taken, value=value))

    def _say_blind(self, rule: GuardRule, step: Step) -> None:
        if rule.name not in self._blind:
            self._blind.add(rule.name)
            log.warning("guard.blind", guard=rule.name, metric=rule.metric, known=sorted(step.metrics))

    async def _firing(self, rule: GuardRule, point: Point, detail: str) -> tuple[Firing, Target | None]:
        action, target = rule.action, None
        if action == "roll_back":
            been = self._gone_back(rule)
            target = await self._target(rule)
            if been >= rule.most:
                action, detail = "pause", f"{detail}; it has gone back {been} time{'s' * (been != 1)} already"
                target = None
            elif target is None:
                detail += "; there is no earlier checkpoint to go back to"
        firing = Firing(
            guard=rule.name,
            step=point.step,
            taken=self._taken,
            action=action,
            detail=detail,
            scale=lowered(self.scale, rule),
            went_back=target is not None,
        )
        self._fired.append(firing)
        return firing, target

    def _tell(self, firing: Firing) -> None:
        self._paused = self._paused or firing.action == "pause"
        told = {"guard": firing.guard, "step": firing.step, "action": firing.action, "scale": firing.scale}
        self._board.record({"kind": "guard", **told, "detail": firing.detail})
        log.warning("guard.fired", **told, detail=firing.detail)

    async def _target(self, rule: GuardRule) -> Target | None:
        line = await line_of(self._store.history)
        if rule.steps is None:
            target = self._best(line)
            return None if target is None or target.checkpoint == line.head(line.last) else target
        try:
            return line.back(rule.steps)
        except ConfigError:
            return None
