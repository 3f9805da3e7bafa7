"""``python -m tests.simulation.mutants [NAME ...]``: how many seeds it takes to notice a deliberate bug.

A mutant is the product with one passage of one module replaced, before that module is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from subprocess import run
from types import CodeType, ModuleType
from typing import Any

SEEDS = 10_000


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug."""

    module: str
    before: str
    after: str

    def of(self, text: str) -> str:
        """The module's text with the bug.

        Raises:
            ValueError: the passage is not there once.
        """
        if text.count(self.before) != 1:
            raise ValueError(f"{self.module}: this is not there once: {self.before!r}")
        return text.replace(self.before, self.after)


MUTANTS = {
    "send_an_unknown_call_again": Mutant(
        "stages.train",
        "except ServiceUnreachable as error:\n            wait_s",
        "except (ServiceUnreachable, OutcomeUnknown) as error:\n            wait_s",
    ),
    "step_on_a_call_of_unknown_outcome": Mutant(
        "stages.train",
        '        answer = await _once(trainer.ledger, "forward_backward", plan, send, away)',
        "        try:\n"
        '            answer = await _once(trainer.ledger, "forward_backward", plan, send, away)\n'
        "        except OutcomeUnknown:\n            continue",
    ),
    "write_the_row_after_the_call": Mutant(
        "store.ledger",
        """        await self._database.write(
            "INSERT INTO calls (id, step, kind, sent_at) VALUES (?, ?, ?, ?)",
            call, plan, kind, now(),
            apart=True,
        )  # fmt: skip
        self._database.lull()
        try:
            yield opened
""",
        """        try:
            yield opened
            await self._database.write(
                "INSERT INTO calls (id, step, kind, sent_at) VALUES (?, ?, ?, ?)", call, plan, kind, now()
            )
""",
    ),
    "read_nothing_back": Mutant("store.journal", "self.waiting += _decode(record)\n", "_decode(record)\n"),
    "call_before_the_disk_has_what_is_trained_on": Mutant(
        "store.database", "                journal.sync()\n", "                pass\n"
    ),
    "clear_the_journal_before_the_disk_has_its_rows": Mutant(
        "store.database", "clears = journal is not None and syncs and ", "clears = journal is not None and "
    ),
    "end_the_groups_in_another_transaction": Mutant(
        "store.ledger",
        "[(ending, plan, number) for number in groups]",
        "[(ending, plan, number) for number in groups[1:]]",
    ),
    "adopt_without_looking_at_the_parent": Mutant(
        "rules.settlement",
        "    if node.prev_model_checkpoint_id != claim.head_before:\n",
        "    if False:\n",
    ),
    "leave_what_has_accumulated": Mutant(
        "settling", "            await self._set_back(step.head_before)", "            await anyio.sleep(0)"
    ),
    "do_not_compare_counts": Mutant(
        "settling", "num_datums=step.num_datums if counts else None", "num_datums=None"
    ),
    "believe_a_list_that_lags": Mutant(
        "settling",
        "        tree = await self._shown(checkpoint)\n"
        "        node = next((node for node in tree if node.id == checkpoint), None)\n"
        "        active = head(tree)\n",
        "        tree = await self.catalog.checkpoints(self.model_id)\n        node = active = head(tree)\n",
    ),
    "take_an_answer_for_proof": Mutant(
        "settling", "if (wrong := flaw(node, claim)) is not None:", "if wrong := None:"
    ),
    "keep_groups_of_the_steps_that_are_left": Mutant(
        "store.rollbacks", "WHERE group_number = number AND (version_max > :step", "WHERE 0 AND (0"
    ),
    "take_a_new_policy_for_the_one_before": Mutant(
        "policy", "unpublished=served if new else None", "unpublished=None"
    ),
    "cut_the_history_before_the_head_is_set": Mutant(
        "rewinding",
        "    try:\n        await settler.move_head(",
        "    await rollbacks.done(rollback, from_step=line.last, from_checkpoint=head)\n"
        "    try:\n        await settler.move_head(",
    ),
    "train_on_what_is_too_old": Mutant(
        "rules.batching", "if self._step - 1 - group.oldest_version > self._staleness", "if False"
    ),
    "persist_the_dispatched_cursor": Mutant(
        "resume",
        "ended=frozenset(await trajectories.ended()),",
        "ended=frozenset(range(max(await trajectories.ended(), default=-1) + 2)),",
    ),
    "take_every_policy_for_the_newest": Mutant(
        "feedback",
        "            return self._versions[checkpoint]\n",
        "            return self._policy.version\n",
    ),
    "take_the_first_weights_for_the_newest": Mutant(
        "feedback", "            return self._initial\n", "            return asked_at\n"
    ),
    "lose_a_permit_of_several": Mutant(
        "feedback",
        "self._held.difference_update(groups)",
        "self._held.difference_update({*groups} - ({3} if self.total > 1 else set()))",
    ),
    "evaluate_whatever_is_served": Mutant("attempt", "if made_by in (None, version):", "if True:"),
    "never_mind_who_was_there_meanwhile": Mutant(
        "single_writer", "        if unknown:\n", "        if unknown < 0:\n"
    ),
    "do_not_sync": Mutant("store.database", "_SYNCHRONOUS[survives]", "'NORMAL'"),
    "keep_the_permit_of_a_stale_group": Mutant(
        "stages.collect",
        "self._dropped(number, ending, placed.step, replaced=True)",
        "self._dropped(number, ending, placed.step, replaced=False)",
    ),
    "go_on_with_a_fork_that_has_gradients": Mutant(
        "resume",
        "if verdict.strays or (step.may_have_accumulated and keeps_gradients):",
        "if verdict.strays:",
    ),
}


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType | None:
        return compile(self._mutant.of(self.get_source(fullname) or ""), self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or fullname != f"hud_orchestrator.{self._mutant.module}" or spec.origin is None:
            return None
        spec.loader = _Loader(fullname, spec.origin, self._mutant)
        return spec


def seeds_until_caught(name: str, *, most: int = SEEDS) -> tuple[int, Any] | None:
    """The number of seeds and what was noticed; before the product is imported, so once per process."""
    sys.meta_path.insert(0, _Finder(MUTANTS[name]))
    from tests.simulation.world import simulate

    for seed in range(most):
        try:
            simulate(seed)
        except Exception as error:  # however it shows
            return seed + 1, error
    return None


def main(names: Sequence[str]) -> int:
    """Say of each mutant how it was caught; several run in a process each."""
    if len(names) != 1:
        commands = [[sys.executable, "-m", "tests.simulation.mutants", name] for name in names or MUTANTS]
        return sum(run(command, check=False).returncode for command in commands)
    caught = seeds_until_caught(names[0])
    if caught is None:
        print(f"{names[0]}: not in {SEEDS} seeds", flush=True)
        return 1
    print(f"{names[0]}: {caught[0]} seeds: {' '.join(repr(caught[1]).split())[:200]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
