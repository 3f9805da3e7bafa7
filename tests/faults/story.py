"""One run of the real daemon in the simulated world, in which exactly what a test says goes wrong."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from hud_orchestrator import logs
from hud_orchestrator.clients.pool import Reply
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.errors import leaves
from hud_orchestrator.wire import KEEP_CHECKPOINTS
from tests.simulation.alone import on_our_own
from tests.simulation.clock import Clock
from tests.simulation.disk import SimulatedDisk, Unsafe
from tests.simulation.environments import SimulatedPlacement
from tests.simulation.life import End, Process
from tests.simulation.network import SimulatedNetwork, Weather
from tests.simulation.service import BASE, Node, SimulatedService

TRAINED = """
SELECT g.step, r.trace_id, r.version_min FROM rollouts r JOIN groups g ON g.number = r.group_number
WHERE g.ending = 'trained' AND r.reward IS NOT NULL AND r.num_tokens > 0
"""

TASKS = json.dumps([{"env": "parity", "id": "even", "args": {"n": n}} for n in range(8)])


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is about to leave."""

    name: str
    """The last part of its path, like ``optim-step``."""
    nth: int
    """Which one of that name it is in this life of the daemon, counted from 1."""
    at: float
    """Simulated seconds since the world began."""
    keep: frozenset[str] = frozenset()
    """Checkpoints that it asks to keep."""


Mishap = Callable[[Request], str | int | None]
"""What happens to a request: a fate of the simulated network, or a status that it is answered with; nothing:
it is answered at once."""


def none(_: Request) -> None:
    """Nothing goes wrong."""


DAY = 86400.0

LOSS = {"loss", "loss:sum"}
"""What a step's loss is called, by a daemon that computes it and by the service."""


class Story:
    """A service, a run directory, and one life of the daemon after the other."""

    def __init__(
        self,
        directory: Path,
        *,
        steps: int = 4,
        staleness: int = 0,
        seed: int = 0,
        members: int = 2,
        leases: bool = False,
        counts: bool = True,
        lost_steps: str = "redo",
        guards: Sequence[Mapping[str, Any]] = (),
        loss: str = "importance_sampling",
        evaluates: bool = False,
        **lags: float,
    ) -> None:
        self.directory = directory
        self.steps = steps
        self.staleness = staleness
        self.clock = Clock()
        given = {"list_lag_s": 0.0, "gateway_lag_s": 0.0, **lags}
        self.service = SimulatedService(
            Random(1), idempotent=True, counts=counts, rates=True, leases=leases, **given
        )
        self._lives = seed
        self._unsafe = Unsafe()
        self.loaded = _loaded(
            directory, steps, staleness, members, lost_steps, guards, loss, evaluates=evaluates
        )

    def live(
        self,
        mishap: Mishap = none,
        *,
        at_work: Callable[[int], Literal["kill", "power cut"] | None] = lambda _: None,
        pages: int | None = None,
    ) -> End:
        """Run the daemon until it ends, or is killed.

        Args:
            mishap: decides about each request.
            at_work: told of each piece of the store's work by its number; what kills the process there, if
                anything does: before it, in the middle or after it.
            pages: the store may not grow beyond so many, as if the disk was full then.
        """
        self._lives += 1
        works = iter(range(1, 1_000_000))
        disk = _Disk(
            self.loaded.run.directory, Random(self._lives), lambda: at_work(next(works)), pages, self._unsafe
        )
        network = _Network(self.clock, self.service, mishap)
        placement = SimulatedPlacement(_NeverUnlucky(), begun=set())
        with on_our_own(self._lives, self.clock):
            logs.configure(stream=None, as_json=True, level="info")
            end = Process(self.loaded, self.clock, network, disk, placement).go()
        assert end is not None
        return end

    def said(self, end: End) -> str:
        """The line that a person sees at the end."""
        assert end.error is not None
        return "; ".join(str(leaf) for leaf in leaves(end.error))

    def pause(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.now += seconds

    def check(self) -> None:
        """The run is done: every step was applied once, with its own gradient, and every group ended once."""
        with self.store() as connection:
            over = connection.execute(
                "SELECT * FROM steps WHERE state IN ('applied', 'skipped') ORDER BY number"
            ).fetchall()
            groups = connection.execute("SELECT * FROM groups WHERE ending = 'trained'").fetchall()
            trained = connection.execute(TRAINED).fetchall()
        assert [row["number"] for row in over] == list(range(1, self.steps + 1))
        steps, chain = [row for row in over if row["state"] == "applied"], self._chain()
        assert all(json.loads(row["metrics"]).keys() & LOSS for row in steps)
        assert [node.id for node in chain] == [row["checkpoint"] for row in steps]
        for step, node in zip(steps, chain, strict=True):
            mine = sorted(row["trace_id"] for row in trained if row["step"] == step["number"])
            assert list(node.traces) == mine, f"step {step['number']} has its own gradient, once"
            ended = sorted(row["number"] for row in groups if row["step"] == step["number"])
            assert sorted(json.loads(step["groups"])) == ended
        assert all(row["step"] - 1 - row["version_min"] <= self.staleness for row in trained)

    def trained(self) -> set[str]:
        """The traces that were trained on."""
        with self.store() as connection:
            return {row["trace_id"] for row in connection.execute(TRAINED)}

    def step_one(self) -> str | None:
        """What the first step made; ``None``: it was skipped."""
        with self.store() as connection:
            (made,) = connection.execute(
                "SELECT checkpoint FROM steps WHERE number = 1 AND state IN ('applied', 'skipped')"
            ).fetchone()
        return None if made is None else str(made)

    def applied(self) -> int:
        """How many steps made a checkpoint: one whose groups have no spread is skipped."""
        with self.store() as connection:
            (count,) = connection.execute("SELECT count(*) FROM steps WHERE state = 'applied'").fetchone()
        return int(count)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the daemon has logged under *name*, in all its lives."""
        lines = (self.loaded.run.directory / "run.log").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == name]

    @contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        """Look at the store."""
        with closing(sqlite3.connect(self.loaded.run.directory / "store.db")) as connection:
            connection.row_factory = sqlite3.Row
            yield connection

    def bring_a_fork(self) -> None:
        """The slug is there before the run, which does not know what it was forked from."""
        base = {"source_model_id": BASE, "name": self.loaded.run.model.slug}
        reply = self.service.handle("POST", "/v2/models/fork", base, key=None, token=None, now=self.clock.now)
        assert reply.status == 200
        model = self.loaded.run.model.model_copy(update={"base": None})
        self.loaded = replace(self.loaded, run=self.loaded.run.model_copy(update={"model": model}))

    def notebook(self, call: str, trace: str = "somebody-elses", *, token: int | None = None) -> None:
        """Somebody else makes a training call to the slug."""
        (slug,) = self.service.slugs.values()
        body = {"inputs": [{"trace_id": trace}], "learning_rate": 1e-3}
        path, now = f"/v1/models/{slug.id}/train/{call}", self.clock.now
        assert self.service.handle("POST", path, body, key=None, token=token, now=now).status == 200

    @contextmanager
    def leased(self) -> Iterator[int]:
        """Somebody else has the slug on lease, with this token."""
        (slug,) = self.service.slugs.values()
        path, body = (
            f"/v1/models/{slug.id}/lease",
            {"owner": "somebody", "claim": 1, "holder": "else", "ttl_s": DAY},
        )
        lease = self.service.handle("POST", path, body, key=None, token=None, now=self.clock.now).body
        yield lease["token"]
        self.service.handle("DELETE", path, None, key=None, token=lease["token"], now=self.clock.now)

    def takes_over(self) -> None:
        """Somebody else steps in the place of a step whose gradient is there, with as many datums."""
        (slug,) = self.service.slugs.values()
        (ours,) = slug.batches
        slug.batches.clear()
        for place in range(len(ours)):
            self.notebook("forward-backward", f"somebody-elses-{place}")
        self.notebook("optim-step")

    def set_head(self, checkpoint: str | None) -> None:
        """A person sets the head."""
        (slug,) = self.service.slugs.values()
        path, body = f"/v2/models/{slug.id}/head", {"checkpoint_id": checkpoint}
        assert self.service.handle("PUT", path, body, key=None, token=None, now=self.clock.now).status == 200

    def _chain(self) -> list[Node]:
        """The history of the head, oldest first."""
        with self.store() as connection:
            name = connection.execute("SELECT value FROM meta WHERE key = 'slug'").fetchone()[0]
        slug = next(one for one in self.service.slugs.values() if one.name == name)
        nodes, chain, at = {node.id: node for node in slug.nodes}, [], slug.head
        while at is not None:
            chain.append(nodes[at])
            at = nodes[at].parent
        return chain[::-1]


class _NeverUnlucky(Random):
    """Environments that neither hang nor fail."""

    def random(self) -> float:
        return 0.5


class _Network(SimulatedNetwork):
    def __init__(self, clock: Clock, service: SimulatedService, mishap: Mishap) -> None:
        super().__init__(clock=clock, service=service, rng=Random(4), weather=Weather(), tell=lambda _: None)
        self._mishap = mishap
        self._seen: Counter[str] = Counter()

    async def carry(
        self,
        method: str,
        path: str,
        content: bytes | None,
        *,
        headers: Mapping[str, str] | None,
        patience_s: float,
    ) -> Reply:
        name = path.rsplit("/", 1)[-1]
        self._seen[name] += 1
        keep = frozenset(filter(None, (headers or {}).get(KEEP_CHECKPOINTS, "").split(",")))
        fate = self._mishap(Request(name, self._seen[name], self.clock.now, keep))
        if isinstance(fate, int):
            return Reply(status=fate, headers={}, content=b'{"detail": "said by the story"}')
        self.weather = Weather(**({fate: 1.0} if fate else {}))  # type: ignore[arg-type]
        return await super().carry(method, path, content, headers=headers, patience_s=patience_s)


class _Disk(SimulatedDisk):
    def __init__(
        self,
        directory: Path,
        rng: Random,
        at_work: Callable[[], Literal["kill", "power cut"] | None],
        pages: int | None,
        unsafe: Unsafe,
    ) -> None:
        super().__init__(directory=directory, rng=rng, at_work=at_work, unsafe=unsafe)
        self._pages = pages

    def open(self, path: Path) -> sqlite3.Connection:
        connection = super().open(path)
        if self._pages is not None:
            connection.execute(f"PRAGMA max_page_count = {self._pages}")
        return connection


def _loaded(
    directory: Path,
    steps: int,
    staleness: int,
    members: int,
    lost_steps: str,
    guards: Sequence[Mapping[str, Any]],
    loss: str,
    *,
    evaluates: bool,
) -> LoadedRun:
    tasks = directory / "tasks.json"
    tasks.write_text(TASKS)
    run = RunFile.model_validate(
        {
            "run": {"name": "it", "steps": steps, "state_dir": directory / "state"},
            "model": {"slug": "it", "base": "base"},
            "service": "hud",
            "taskset": {"train": str(tasks), "heldout": str(tasks) if evaluates else None},
            "evaluation": {"every": 1, "limit": 2},
            "agent": {"max_tokens": 1},
            "rollout": {
                "group_size": members, "groups_per_step": 2, "concurrency": 6, "deadline_s": 30,
                "grading_reserve_s": 5,
            },
            "pipeline": {"staleness": staleness},
            "trainer": {
                "learning_rate": {"peak": 1e-3}, "call_timeout_s": 60, "on_lost_step": lost_steps,
                "loss": loss,
            },
            "guards": guards,
            "reporting": {"enabled": False},
        }
    )  # fmt: skip
    origins: dict[str, str] = defaultdict(lambda: "default")
    return LoadedRun(run=run, path=directory / "run.yaml", origins=origins, warnings=())
