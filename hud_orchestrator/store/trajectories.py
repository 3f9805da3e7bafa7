"""Groups and their rollouts: token ids, logprobs, grades and the policy versions they came from.

Nothing here asks to wait for the disk: a power cut loses what no training call has followed yet, and that is
sampled again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hud_orchestrator.records import (
    Dropped,
    Ending,
    Group,
    Outcome,
    Phase,
    Rollout,
    Sample,
    Task,
    Ticket,
    Visit,
)
from hud_orchestrator.steps import EpisodeStep
from hud_orchestrator.store.database import Database

COLUMNS = (
    "group_number", "member", "trace_id", "outcome", "reward", "grade", "num_tokens",
    "version_min", "version_max", "remote", "document",
)  # fmt: skip
ADD_ROLLOUT = (
    f"INSERT INTO kept_rollouts ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
    " ON CONFLICT DO NOTHING"
)
BEGIN_GROUP = "INSERT INTO groups (number, task, size) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
JUDGE_GROUP = "UPDATE groups SET ending = ?, step = ?, rewards = ? WHERE number = ? AND ending IS NULL"
END_GROUP = "UPDATE groups SET ending = ?, step = ? WHERE number = ? AND ending IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A whole group, and why it ended; without an ending it waits to be trained on."""

    group: Group
    ending: Ending | None = None
    step: int | None = None
    """That it was tried for."""

    @property
    def row(self) -> tuple[object, ...]:
        """Parameters of ``JUDGE_GROUP``."""
        rewards = [rollout.reward for rollout in self.group.rollouts if rollout.reward is not None]
        return (self.ending, self.step, json.dumps(rewards), self.group.number)


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What rollouts are neither searched nor counted by. A number that is not finite becomes null in it."""

    samples: tuple[Sample, ...]
    steps: tuple[EpisodeStep, ...]
    phases: Mapping[Phase, float]
    phase: Phase = Phase.TEARDOWN
    seconds: float
    began_at: float = 0.0
    """Seconds since 1970, UTC."""
    attempts: int = 1
    answer: str | None = None
    detail: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Document).decode


class Trajectories:
    """What was attempted and what became of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begun: dict[int, set[int]] = {}
        """Groups of which something is noted, and that are not whole yet; and the members that are."""

    async def keep(self, rollouts: Sequence[Rollout], *, groups: Sequence[Judged] = ()) -> None:
        """Note members of groups that are not whole yet, and *groups* that are, all or nothing of it."""
        wholes = [rollout for judged in groups for rollout in judged.group.rollouts]
        new = [
            one
            for one in (*rollouts, *wholes)
            if one.ticket.member not in self._begun.get(one.ticket.group, ())
        ]
        if not new and not groups:
            return
        tickets = {one.ticket.group: one.ticket for one in new if one.ticket.group not in self._begun}
        begun, members = [_group_row(one) for one in tickets.values()], [_rollout_row(one) for one in new]
        verdicts = [judged.row for judged in groups]
        await self._database.note([(BEGIN_GROUP, begun), (JUDGE_GROUP, verdicts), (ADD_ROLLOUT, members)])
        for one in new:
            self._begun.setdefault(one.ticket.group, set()).add(one.ticket.member)
        for judged in groups:
            self._begun.pop(judged.group.number, None)

    async def add(self, group: Group, *, ending: Ending | None, step: int | None = None) -> None:
        """Write one whole group."""
        await self.keep([], groups=[Judged(group=group, ending=ending, step=step)])

    async def keep_up(self) -> None:
        """Have what was noted in the store before long, for who looks at it from outside."""
        await self._database.keep_up()

    async def end(self, number: int, *, ending: Ending, step: int | None) -> None:
        """Say how a group ended that was written without an ending."""
        await self._database.note([(END_GROUP, [(ending, step, number)])])

    async def unended(self) -> list[Group]:
        """Groups that were never trained on, in order: finished ones, and what is kept of others."""
        found = await self._database.read(
            "SELECT g.number AS number, g.task AS task, g.size AS size, r.* FROM groups g"
            " JOIN kept_rollouts r ON r.group_number = g.number"
            " WHERE g.ending IS NULL ORDER BY g.number, r.member"
        )
        members: dict[int, list[Rollout]] = {}
        for row in found:
            members.setdefault(row["number"], []).append(rollout_of(row))
        return [Group(number=number, rollouts=tuple(group)) for number, group in members.items()]

    async def dropped(self, *, after: int) -> dict[int, list[Dropped]]:
        """Groups whose rewards were no good for a step after step *after*, by the step they were tried for.

        What failed is not among them: it says nothing about the task, and may well work now.
        """
        found = await self._database.read(
            "SELECT number, ending, step, rewards, (SELECT json_group_array(outcome) FROM kept_rollouts"
            " WHERE group_number = number) AS outcomes FROM groups"
            " WHERE step > ? AND rollback IS NULL AND ending IN (?, ?) ORDER BY number",
            after,
            Ending.NO_SPREAD,
            Ending.PARTIAL,
        )
        dropped: dict[int, list[Dropped]] = {}
        for row in found:
            dropped.setdefault(row["step"], []).append(
                Dropped(
                    number=row["number"],
                    ending=Ending(row["ending"]),
                    outcomes=tuple(Outcome(outcome) for outcome in json.loads(row["outcomes"])),
                    rewards=tuple(json.loads(row["rewards"])),
                )
            )
        return dropped

    async def ended(self) -> set[int]:
        """Numbers of the groups that have ended."""
        return {
            row["number"]
            for row in await self._database.read("SELECT number FROM groups WHERE ending IS NOT NULL")
        }

    async def visits(self, *, first: int = 0, last: int) -> list[Visit]:
        """What the groups that ended in steps *first* to *last* say about their tasks, in a fixed order.

        Those of steps that the run went back from say nothing: another policy tried them.
        """
        found = await self._database.read(
            "SELECT json_extract(task, '$.slug') AS slug, rewards FROM groups"
            " WHERE ending IS NOT NULL AND rollback IS NULL AND step BETWEEN ? AND ? ORDER BY step, number",
            first,
            last,
        )
        return [Visit(slug=row["slug"], rewards=tuple(json.loads(row["rewards"]))) for row in found]

    async def outcomes(self) -> Counter[str]:
        """How many training rollouts ended in each way."""
        found = await self._database.read("SELECT outcome, count(*) AS n FROM kept_rollouts GROUP BY outcome")
        return Counter({row["outcome"]: row["n"] for row in found})


def _json(value: Document | Task | dict[str, Any]) -> str:
    """Compact JSON; a number that is not finite becomes null."""
    try:
        # Several times as quick as the standard library's, and this is most of what a rollout costs here.
        return _encode(value).decode()
    except UnicodeEncodeError:
        # A model's or an environment's words may not be whole characters.
        return _whole(value)


def _whole(value: Document | Task | dict[str, Any]) -> str:
    """Compact JSON as the standard library reads and writes it: half characters and NaN too."""
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def _text(text: str | None) -> str | None:
    """*text* as SQLite can keep it: a model's or an environment's words may not be whole characters."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _group_row(ticket: Ticket) -> tuple[object, ...]:
    return (ticket.group, _json(ticket.task), ticket.members)


def _rollout_row(rollout: Rollout) -> tuple[object, ...]:
    versions = [sample.version for sample in rollout.samples]
    if rollout.untold_version is not None:
        versions.append(rollout.untold_version)
    return (
        rollout.ticket.group,
        rollout.ticket.member,
        rollout.trace_id,
        rollout.outcome.value,
        rollout.reward,
        None if rollout.grade is None else _grade(rollout.grade),
        rollout.num_tokens,
        min(versions) if versions else None,
        max(versions) if versions else None,
        rollout.remote,
        _document(rollout),
    )


def _grade(frame: Mapping[str, Any]) -> str:
    facts = dict(frame)
    text = _json(facts)
    # Environments may say anything in it, and a number that is not finite is kept as one.
    return _whole(facts) if "null" in text else text


def _document(rollout: Rollout) -> str:
    return _json(
        Document(
            samples=rollout.samples,
            steps=rollout.steps,
            phases=rollout.phases,
            phase=rollout.phase,
            seconds=rollout.seconds,
            began_at=rollout.began_at,
            attempts=rollout.attempts,
            answer=_text(rollout.answer),
            detail=_text(rollout.detail),
        )
    )


def rollout_of(row: sqlite3.Row) -> Rollout:
    """The rollout in a row of ``kept_rollouts`` with its group's ``number``, ``task`` and ``size``."""
    task, document = _task(json.loads(row["task"])), _document_of(row["document"])
    told, oldest = {sample.version for sample in document.samples}, row["version_min"]
    return Rollout(
        ticket=Ticket(group=row["number"], member=row["member"], task=task, members=row["size"]),
        trace_id=row["trace_id"],
        outcome=Outcome(row["outcome"]),
        samples=document.samples,
        reward=row["reward"],
        grade=None if row["grade"] is None else json.loads(row["grade"]),
        answer=document.answer,
        detail=document.detail,
        attempts=document.attempts,
        seconds=document.seconds,
        phase=document.phase,
        phases=document.phases,
        remote=bool(row["remote"]),
        began_at=document.began_at,
        steps=document.steps,
        untold_version=None if oldest in told else oldest,
    )


def _document_of(text: str) -> Document:
    try:
        return _decode(text)
    except msgspec.DecodeError:
        # Words that are not whole characters, see ``_json``.
        return msgspec.convert(json.loads(text), Document)


def _task(facts: Mapping[str, Any]) -> Task:
    verifier = facts.get("verifier")
    return Task(**{**facts, "verifier": verifier and _task(verifier)})
