"""What must hold of runs that are over, by the service's own truth."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from hud_orchestrator.errors import ExitCode
from tests.simulation.service import Node, SimulatedService, Slug

if TYPE_CHECKING:
    from tests.simulation.daemons import Daemon


class Broken(AssertionError):
    """An invariant does not hold."""


def check(daemons: Sequence[Daemon], service: SimulatedService, *, steps: int) -> None:
    """Hold the stores against what the service knows to be true.

    Raises:
        Broken: they differ, and nobody noticed.
    """
    noticed = any(daemon.codes[-1] == ExitCode.HEAD_MOVED for daemon in daemons)
    for daemon in daemons:
        contested = not daemon.alone and not daemon.mix.leases
        with closing(sqlite3.connect(daemon.loaded.run.directory / "store.db")) as connection:
            connection.row_factory = sqlite3.Row
            store = _Store(connection, daemon)
            store.check_groups()
            store.check_permits()
            done = daemon.codes[-1] == ExitCode.DONE
            if done:
                _must(store.steps == list(range(1, steps + 1)), "steps are 1 to the last, each once")
                _must(not store.open, "no step is open")
                store.check_evaluations(service.judged)
            slug = next((one for one in service.slugs.values() if one.name == store.slug), None)
            if slug is None:
                continue
            store.check_gradients(slug, excused=noticed and contested, found=contested)
            if daemon.visitor is not None:
                store.check_visit(slug, daemon.visitor.made)
            if not contested:
                store.check_policies(slug, service.sampled)
                store.check_ages(slug, service.sampled)
            if done and daemon.alone:
                believed = list(store.applied.values())
                _must([node.id for node in _chain(slug, believed)] == believed, "history is the ledger's")
                # A late request may move it when nobody looks any more.
                late = slug.heads and slug.heads[-1][0] >= slug.listed_at
                _must(late or [slug.head] == (believed or [None])[-1:], "the head is the last step's")


class _Store:
    """What one daemon believes."""

    def __init__(self, connection: sqlite3.Connection, daemon: Daemon) -> None:
        self._connection = connection
        self._daemon = daemon
        self._run = daemon.loaded.run
        self._bounds = daemon.bounds
        self._staleness = max(staleness for staleness, _ in self._bounds)
        over = self._all("SELECT * FROM steps WHERE state IN ('applied', 'skipped') ORDER BY number")
        self.steps = [row["number"] for row in over]
        self.applied = {row["number"]: row["checkpoint"] for row in over if row["state"] == "applied"}
        self.open = self._all("SELECT 1 FROM steps WHERE state = 'planned'")
        facts = {row["key"]: row["value"] for row in self._all("SELECT * FROM meta")}
        self.slug, self._first_head = facts.get("slug"), facts.get("first_head") or None
        self._first_tree = json.loads(facts.get("first_tree", "[]"))
        self._planned = {row["number"]: set(json.loads(row["groups"])) for row in over}
        self._made = self._all("SELECT * FROM steps WHERE state IN ('applied', 'rolled_back')")

    def check_groups(self) -> None:
        """Every group that was begun has ended once, but for those in flight when the run ended."""
        groups = self._all("SELECT number, ending, step, rollback FROM groups")
        ended: dict[int, set[int]] = defaultdict(set)
        for row in groups:
            if row["ending"] in ("trained", "lost") and row["rollback"] is None:
                ended[row["step"]].add(row["number"])
        for number, planned in self._planned.items():
            if number in self.applied or number in ended:
                _must(planned == ended[number], f"step {number}: its groups ended with it")
        in_flight = max(groups * (staleness + 1) for staleness, groups in self._bounds)
        known = {row["number"] for row in groups}
        unknown = set(range(max(known, default=-1) + 1)) - known
        unended = sum(row["ending"] is None for row in groups)
        _must(len(unknown) + unended <= in_flight, f"{len(unknown)} groups vanished, {unended} wait")
        traces = [
            row["trace_id"] for row in self._all("SELECT trace_id FROM rollouts WHERE reward IS NOT NULL")
        ]
        _must(
            set(traces) <= self._daemon.begun and len(set(traces)) == len(traces), "a rollout is one episode"
        )

    def check_permits(self) -> None:
        """No group that is over holds one, but for those of the step that was in hand."""
        over = {
            row["number"]
            for row in self._all("SELECT * FROM groups WHERE ending IS NOT NULL AND rollback IS NULL")
            if row["step"] <= self._daemon.promoted
        }
        _must(not over & self._daemon.held, f"groups {over & self._daemon.held} are over and hold a permit")

    def check_evaluations(self, judged: Counter[str | None]) -> None:
        """Each that was due was made, of the policy of its step.

        Args:
            judged: how often each head was sampled without chance, as evaluations alone do.
        """
        if not self._run.taskset.evaluates:
            return
        rows = self._all("SELECT version, checkpoint, graded FROM evaluations WHERE rollback IS NULL")
        made = {row["version"]: row["checkpoint"] for row in rows}
        last = self._run.run.steps
        due = {version for version in range(last + 1) if version % self._run.evaluation.every == 0} | {last}
        _must(set(made) == due, f"evaluations were due at {sorted(due)}, and made at {sorted(made)}")
        for version, checkpoint in made.items():
            served = max((step for step in self.applied if step <= version), default=None)
            head = self._first_head if served is None else self.applied[served]
            _must(checkpoint == head, f"evaluation {version} is of the step's policy")
        graded: Counter[str | None] = Counter()
        for row in rows:
            graded[row["checkpoint"]] += row["graded"]
        # Who waits for an answer in vain is graded without one; who begins with somebody else's model does
        # not know the checkpoints before its head.
        excused = self._daemon.mix.may_say_nothing or not self._daemon.alone
        _must(excused or graded <= judged, "what was evaluated is what was sampled")

    def check_gradients(self, slug: Slug, *, excused: bool, found: bool) -> None:
        """Each step applied what it says, whole, once, and nothing else.

        Args:
            slug: the model.
            excused: somebody noticed that there is another trainer.
            found: another trainer may have left something on a fork without a head, which cannot be cleared,
                or put as much in the place of what a late call of the run then steps on.
        """
        nodes = {node.id: node for node in slug.nodes}
        traces = self._trained()
        # Those that the run went back from too.
        for step in self._made:
            number, checkpoint = step["number"], step["checkpoint"]
            if checkpoint is None:
                continue
            _must(checkpoint in nodes, f"step {number} made a checkpoint")
            groups = json.loads(step["groups"])
            made, wanted = (
                nodes[checkpoint].traces,
                [one for group in groups for one in traces.pop(group, ())],
            )
            foreign = not set(made) <= set(wanted)
            late = len(made) == len(wanted) and nodes[checkpoint].learning_rate == step["learning_rate"]
            if foreign and (excused or (found and (nodes[checkpoint].parent is None or late))):
                continue
            _must(set(made) <= set(wanted), f"step {number} took a gradient of something else")
            _must(len(set(made)) == len(made), f"step {number} took a gradient twice")
            _must(len(made) == len(wanted), f"step {number} took a part of its gradient")
            figures, ours = json.loads(step["metrics"]), self._daemon.mix.own_loss
            known = "loss" in figures if ours else figures.get("loss:sum") == nodes[checkpoint].loss
            _must(known, f"the loss of step {number} is known")

    def check_visit(self, slug: Slug, made: Node | None) -> None:
        """Nothing was trained on a model that somebody else has trained since the run began."""
        if made in slug.nodes and made.id not in self._first_tree:
            _must(made is slug.nodes[-1], "nothing is trained on what somebody else has trained meanwhile")

    def check_policies(self, slug: Slug, sampled: Mapping[str, set[str | None]]) -> None:
        """Nothing was trained on that was sampled from a policy which the run had gone back from.

        Args:
            slug: the model.
            sampled: which heads served a trace; several, where it was asked for again.
        """
        traces = self._trained()
        left = {row["checkpoint"] for row in self._made if row["state"] == "rolled_back"} - {None}
        for step in self._made:
            line = {node.id for node in _chain(slug, [step["checkpoint"]] if step["checkpoint"] else [])}
            for group in json.loads(step["groups"]):
                served = [
                    heads - (left - line) for one in traces.get(group, ()) if (heads := sampled.get(one))
                ]
                _must(all(served), f"step {step['number']} trained on what the run had gone back from")

    def check_ages(self, slug: Slug, sampled: Mapping[str, set[str | None]]) -> None:
        """Nothing was trained on that is older than the bound, by the heads that served it.

        Args:
            slug: the model.
            sampled: which heads served a trace; several, where it was asked for again.
        """
        parents = {node.id: node.parent for node in slug.nodes}
        # A head is the policy until the step on top of it, the last of those if the run went back to it.
        until: dict[str | None, int] = {None: 0} | {
            step["checkpoint"]: self._run.run.steps for step in self._made if step["checkpoint"]
        }
        until |= {None: self._run.run.steps} if len(until) == 1 else {}
        # What was there before the run's first head was none of its versions.
        until |= dict.fromkeys({*self._first_tree} - {self._first_head}, -self._run.run.steps)
        for step in sorted(self._made, key=lambda one: one["number"]):
            if step["checkpoint"]:
                until[parents[step["checkpoint"]]] = step["number"] - 1
        traces = self._trained()
        for step in self._made:
            for trace in (one for group in json.loads(step["groups"]) for one in traces.get(group, ())):
                # What was the head for a while and is no step's was never published.
                heads = sampled[trace]
                ages = [step["number"] - 1 - until.get(head, step["number"]) for head in heads]
                _must(bool(heads), f"step {step['number']} trained on what nobody sampled")
                _must(min(ages) <= self._staleness, f"step {step['number']} trained on old data")

    def _trained(self) -> Mapping[int, list[str]]:
        traces: dict[int, list[str]] = defaultdict(list)
        for row in self._all(
            "SELECT g.number, g.step, r.trace_id, r.version_min, r.version_max"
            " FROM rollouts r JOIN groups g ON g.number = r.group_number"
            " WHERE g.ending = 'trained' AND r.reward IS NOT NULL AND r.num_tokens > 0"
        ):
            traces[row["number"]].append(row["trace_id"])
            age = row["step"] - 1 - row["version_min"]
            _must(age <= self._staleness, "nothing too old was trained on")
            _must(row["version_max"] < row["step"], "nothing of a policy that comes later was trained on")
        return traces

    def _all(self, sql: str) -> list[sqlite3.Row]:
        return self._connection.execute(sql).fetchall()


def _chain(slug: Slug, believed: Sequence[str]) -> list[Node]:
    nodes = {node.id: node for node in slug.nodes}
    chain, at = [], believed[-1] if believed else None
    while at is not None:
        chain.append(nodes[at])
        at = nodes[at].parent
    return chain[::-1]


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)
