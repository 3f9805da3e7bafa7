"""The return paths: the promoted policy, the admission permits, and the wish to stop.

Records travel one way through the stages. What comes back is a version in a cell with one writer,
permits that groups hold, and a flag that only ever rises.

Permits bound the work in flight: with a staleness bound of S and G groups per step there are
``G * (S + 1)`` of them, so that while one batch trains at most S more are being sampled. They do not
bound age on their own (a slow group may be overtaken for ever); the sweep at the batch cut does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import anyio

from hud_orchestrator.records import ABANDONED, INITIAL, Policy


class PolicyCell:
    """The policy that the gateway serves, and every one that it served in this run."""

    def __init__(
        self, policy: Policy, *, history: Mapping[str, int] | None = None, abandoned: Collection[str] = ()
    ) -> None:
        """Begin at *policy*; *history* has checkpoints before it, *abandoned* those beside it."""
        self._changed = anyio.Event()
        self._named = False
        """Whether the gateway has named a checkpoint of this run, and not something of its own kind."""
        self.go_back(policy, history=history or {}, abandoned=abandoned)

    def go_back(self, policy: Policy, *, history: Mapping[str, int], abandoned: Collection[str]) -> None:
        """Begin anew at *policy*. Nobody may be waiting, or sample for a training that goes on."""
        self._policy = policy
        self._versions = {**dict.fromkeys(abandoned, ABANDONED), **history}
        self._settled = policy.version
        self._initial = min(history.values(), default=policy.version) - 1
        self._note(policy)

    @property
    def current(self) -> Policy:
        """The newest confirmed policy."""
        return self._policy

    def publish(self, policy: Policy) -> None:
        """Make *policy* the current one; versions only grow.

        Raises:
            ValueError: the version is not newer than the current one.
        """
        if policy.version <= self._policy.version:
            raise ValueError(f"policy versions only grow: have {self._policy.version}, got {policy.version}")
        self._policy = policy
        self._note(policy)

    def abandon(self, checkpoints: Iterable[str]) -> None:
        """Say that *checkpoints* are in no step, and that nothing may be trained on what they sample."""
        self._versions |= dict.fromkeys(checkpoints, ABANDONED)

    def _note(self, policy: Policy) -> None:
        if policy.checkpoint is None:
            self._initial = policy.version
        else:
            self._versions[policy.checkpoint] = policy.version

    def version_of(self, checkpoint: str | None, *, asked_at: int, training: bool = True) -> int:
        """The version that served a completion: by the checkpoint that the gateway named, else *asked_at*.

        A gateway that names none could have served anything since the request left; the version
        from then is the oldest it can be, so age is never understated. What the run has gone back from
        is ``ABANDONED``. A checkpoint of a lost call, which is in no step, is older than the policy that an
        evaluation is of, for which nothing is *training*. Weights before the first step have a name of
        their own, with ``INITIAL``.
        """
        if checkpoint is not None and checkpoint.startswith(INITIAL):
            return self._initial
        if checkpoint is None:
            return asked_at
        if checkpoint in self._versions:
            self._named = True
            return self._versions[checkpoint]
        # One that training has made and nobody knows of yet. When nothing trains it is in no step.
        return asked_at if training or not self._named else asked_at - 1

    def knows(self, checkpoint: str) -> bool:
        """Whether *checkpoint* has been published in this run."""
        return checkpoint in self._versions or checkpoint.startswith(INITIAL)

    def settle(self, version: int) -> None:
        """Say that nothing depends any more on *version* staying the head."""
        self._settled = version
        # Wake today's waiters, then give tomorrow's an event of their own.
        self._changed.set()
        self._changed = anyio.Event()

    async def settled(self, version: int) -> None:
        """Wait until the promotion of *version*, its evaluation included, is over."""
        while self._settled < version:
            await self._changed.wait()


class Permits:
    """Which groups are under way, and how many more may be begun."""

    def __init__(self, *, groups_per_step: int, staleness: int, held: Collection[int] = ()) -> None:
        """Start with permits *held* by groups that were begun before a restart.

        They may be more than there are, as the run file may have grown smaller since: none is handed out
        until they are fewer.
        """
        self.total = groups_per_step * (staleness + 1)
        self.returned: dict[str, int] = {"trained": 0, "dropped": 0}
        self._held = set(held)
        self._changed = anyio.Event()

    @property
    def held(self) -> frozenset[int]:
        """Numbers of the groups that hold one."""
        return frozenset(self._held)

    @property
    def free(self) -> int:
        """Groups that could begin now."""
        return max(0, self.total - len(self._held))

    async def take(self, group: int) -> None:
        """Wait for the right to begin *group*."""
        while not self.free:
            await self._changed.wait()
        self._held.add(group)

    def give_back(self, groups: Collection[int], *, reason: str) -> None:
        """Return the permits of *groups*; *reason* is ``trained`` or ``dropped``.

        Raises:
            ValueError: one of them holds none.
        """
        if strange := set(groups) - self._held:
            raise ValueError(f"groups {sorted(strange)} hold no permit")
        self.returned[reason] += len(groups)
        self._held.difference_update(groups)
        # Wake today's waiter, then give tomorrow's an event of its own.
        self._changed.set()
        self._changed = anyio.Event()


class Drain:
    """The wish to stop: new work ends at once, the step in hand may finish."""

    def __init__(self) -> None:
        self.requested = False
        self._scopes: set[anyio.CancelScope] = set()

    def request(self) -> None:
        """End everything that runs inside :meth:`interruptible`, now and from now on."""
        self.requested = True
        for scope in self._scopes:
            scope.cancel("the run is draining")

    @contextmanager
    def interruptible(self) -> Iterator[anyio.CancelScope]:
        """A scope for work that a drain may cut off."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self.requested:
                scope.cancel("the run is draining")
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    @contextmanager
    def spared(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Keep a drain from cutting off *scope* meanwhile: what is inside winds down by itself."""
        self._scopes.discard(scope)
        yield
