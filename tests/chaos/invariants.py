"""What must hold of a run that is done, by the service's files and the store."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from safetensors.torch import load_file

from hud_orchestrator.local.atomic import PREFIX
from hud_orchestrator.local.tree_records import Head, ModelRecord, Node
from tests.chaos.accounts import groups_of
from tests.chaos.world import World

TRAINED = """
SELECT g.step, count(*) AS rollouts FROM rollouts r JOIN groups g ON g.number = r.group_number
WHERE g.ending = 'trained' AND r.reward IS NOT NULL AND r.num_tokens > 0 GROUP BY g.step
"""


def check(world: World, connection: sqlite3.Connection) -> Counter[str]:
    """Hold the store against the service's tree; what was counted on the way.

    Raises:
        AssertionError: something was applied twice, lost, or left behind.
    """
    slug = connection.execute("SELECT value FROM meta WHERE key = 'slug'").fetchone()[0]
    fork = _fork(world.models, slug)
    nodes = {node.checkpoint.id: node for node in _nodes(fork)}
    chain = _chain(fork, nodes)
    _the_ledger_is_the_tree(connection, chain, steps=world.steps)
    _every_group_ended_once(connection)
    _files_are_whole(world.models, nodes, fork)
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    return Counter(steps=len(chain), branches=len(nodes) - len(chain))


def _the_ledger_is_the_tree(connection: sqlite3.Connection, chain: list[Node], *, steps: int) -> None:
    over = connection.execute(
        "SELECT * FROM steps WHERE state IN ('applied', 'skipped') ORDER BY number"
    ).fetchall()
    assert [row["number"] for row in over] == list(range(1, steps + 1)), "steps are 1 to the last, each once"
    assert [row["state"] for row in over] == ["applied"] * steps, "every step had something to train on"
    assert [node.checkpoint.id for node in chain] == [row["checkpoint"] for row in over], (
        "the tree is the ledger's"
    )
    # A step that was applied twice, or on left-over gradients, would show in one of these counts.
    assert [node.step for node in chain] == list(range(1, steps + 1)), "one optimizer step each"
    trained = {row["step"]: row["rollouts"] for row in connection.execute(TRAINED)}
    taken = {number: node.checkpoint.num_traces for number, node in enumerate(chain, 1)}
    assert taken == trained, "each checkpoint took its own step's rollouts, once"
    assert not connection.execute("SELECT 1 FROM steps WHERE state = 'planned'").fetchall(), "no step is open"


def _every_group_ended_once(connection: sqlite3.Connection) -> None:
    applied = connection.execute("SELECT * FROM steps WHERE state = 'applied'").fetchall()
    times = Counter(number for row in applied for number in groups_of(row))
    assert set(times.values()) <= {1}, "no group was trained on twice"
    ended = {
        row["number"]: row["step"]
        for row in connection.execute("SELECT * FROM groups WHERE ending = 'trained'")
    }
    assert ended == {number: row["number"] for row in applied for number in groups_of(row)}
    incomplete = (
        "SELECT g.number FROM groups g JOIN rollouts r ON r.group_number = g.number"
        " WHERE g.ending = 'trained' GROUP BY g.number HAVING count(*) <> g.size"
    )
    assert not connection.execute(incomplete).fetchall(), "what was trained on is whole"


def _files_are_whole(models: Path, nodes: dict[str, Node], fork: Path) -> None:
    assert not list(models.rglob(f"{PREFIX}*")), "nothing is half-written"
    assert {path.name for path in fork.glob("checkpoints/*")} == set(nodes), "every directory is a node"
    for path in fork.glob("checkpoints/*/*.safetensors"):
        assert load_file(path)
    head = _head(fork).checkpoint_id
    assert head is not None
    assert len(list((fork / "checkpoints" / head).iterdir())) == 3, "the head has all its files"


def _fork(models: Path, slug: str) -> Path:
    found = [path.parent for path in models.glob("*/model.json") if _record(path).slug == slug]
    assert len(found) == 1, f"one fork is called {slug}"
    return found[0]


def _record(path: Path) -> ModelRecord:
    return ModelRecord.model_validate_json(path.read_bytes())


def _nodes(fork: Path) -> list[Node]:
    return [Node.model_validate_json(path.read_bytes()) for path in fork.glob("checkpoints/*/meta.json")]


def _head(fork: Path) -> Head:
    return Head.model_validate_json((fork / "head.json").read_bytes())


def _chain(fork: Path, nodes: dict[str, Node]) -> list[Node]:
    """From the first step to the head."""
    chain, at = [], _head(fork).checkpoint_id
    while at is not None:
        chain.append(nodes[at])
        at = nodes[at].checkpoint.prev_model_checkpoint_id
    return chain[::-1]
