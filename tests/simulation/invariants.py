"""What must hold of a run that is over, by the service's own truth."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict

from tests.simulation.service import Node, SimulatedService, Slug


class Broken(AssertionError):
    """An invariant does not hold."""


def check(connection: sqlite3.Connection, service: SimulatedService, *, steps: int, staleness: int) -> None:
    """Hold the store against what the service knows to be true."""
    slug_name = connection.execute("SELECT value FROM meta WHERE key = 'slug'").fetchone()[0]
    slug = next(one for one in service.slugs.values() if one.name == slug_name)
    over = connection.execute(
        "SELECT * FROM steps WHERE state IN ('applied', 'skipped') ORDER BY number"
    ).fetchall()
    _must([row["number"] for row in over] == list(range(1, steps + 1)), "steps are 1 to the last, each once")
    applied = [row for row in over if row["state"] == "applied"]
    chain = _chain(slug)
    _must([node.id for node in chain] == [row["checkpoint"] for row in applied], "history is the ledger's")
    traces: dict[int, list[str]] = defaultdict(list)
    for row in connection.execute(
        "SELECT g.step, r.trace_id, r.version_min FROM rollouts r JOIN groups g ON g.number = r.group_number"
        " WHERE g.ending = 'trained' AND r.reward IS NOT NULL AND r.num_tokens > 0"
    ):
        traces[row["step"]].append(row["trace_id"])
        _must(row["step"] - 1 - row["version_min"] <= staleness, "nothing too old was trained on")
    for row, node in zip(applied, chain, strict=True):
        wanted = sorted(traces[row["number"]])
        _must(set(node.traces) <= set(wanted), f"step {row['number']} took a gradient of something else")
        _must(len(set(node.traces)) == len(node.traces), f"step {row['number']} took a gradient twice")
        _must(len(node.traces) == len(wanted), f"step {row['number']} took a part of its gradient")
        groups = set(json.loads(row["groups"]))
        ended = {
            one["number"]
            for one in connection.execute(
                "SELECT number FROM groups WHERE step = ? AND ending = 'trained'", (row["number"],)
            )
        }
        _must(groups == ended, f"step {row['number']}: its groups ended with it")
    _must(not connection.execute("SELECT 1 FROM steps WHERE state = 'planned'").fetchall(), "no step is open")


def _chain(slug: Slug) -> list[Node]:
    nodes = {node.id: node for node in slug.nodes}
    chain, at = [], slug.head
    while at is not None:
        chain.append(nodes[at])
        at = nodes[at].parent
    return chain[::-1]


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)
