"""Losses that the daemon computes itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Runner
from tests.e2e.proxy import Loss, lossy
from tests.e2e.test_exactly_once import assert_every_step_is_one_checkpoint

Tree = Callable[[str], list[dict[str, Any]]]

OWN = """
import torch

def policy_gradient(data, logprobs, *, scale=1.0):
    parts = [
        (torch.tensor(datum.mask) * logprob).sum() * (datum.reward - 0.5)
        for datum, logprob in zip(data, logprobs)
    ]
    return -scale * torch.stack(parts).sum(), {"groups": len({datum.group_idx for datum in data})}

def silent(data, logprobs):
    return sum(logprob.sum() for logprob in logprobs) * 0.0, {}

def broken(data, logprobs):
    raise RuntimeError("the moon is full")
"""


def with_loss(run: Runner, loss: str, **config: Any) -> Runner:
    run.write(run={"steps": 2}, trainer={"loss": loss, "loss_config": config}, taskset={"heldout": None})
    (run.directory / "own_losses.py").write_text(OWN)
    return run


@pytest.mark.parametrize("loss", ["gspo", "client:ppo"])
def test_one_of_ours_trains_by_forward_and_backward(remote_run: Runner, checkpoints: Tree, loss: str) -> None:
    done = with_loss(remote_run, loss, advantage="leave_one_out").run()

    assert done.returncode == 0, done.stderr
    assert (
        remote_run.query("SELECT kind, ending FROM calls ORDER BY rowid")
        == [
            ("forward", "confirmed"),
            ("backward", "confirmed"),
            ("optim_step", "confirmed"),
        ]
        * 2
    )
    assert all("kl_k1" in line for line in remote_run.metrics())
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=2)


def test_a_loss_of_ones_own_is_found_beside_the_run_file_and_sees_whole_groups(remote_run: Runner) -> None:
    done = with_loss(remote_run, "own_losses:policy_gradient", scale=2).run()

    assert done.returncode == 0, done.stderr
    assert [line["groups"] for line in remote_run.metrics()] == [
        line["groups_trained"] for line in remote_run.metrics()
    ]


def test_a_loss_that_gives_no_token_a_gradient_skips_the_step(remote_run: Runner, checkpoints: Tree) -> None:
    done = with_loss(remote_run, "own_losses:silent").run()

    assert done.returncode == 0, done.stderr
    assert remote_run.query("SELECT DISTINCT state FROM steps") == [("skipped",)]
    assert remote_run.query("SELECT DISTINCT kind FROM calls") == [("forward",)]
    assert ("no_gradient",) in remote_run.query("SELECT DISTINCT ending FROM groups")
    assert checkpoints(remote_run.config["model"]["slug"]) == []


def test_a_loss_that_raises_ends_the_run_in_one_line_and_takes_no_step(
    remote_run: Runner, checkpoints: Tree
) -> None:
    done = with_loss(remote_run, "own_losses:broken").run()

    assert done.returncode == 1
    assert "the moon is full" in done.stderr
    assert "step 1 was not taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert checkpoints(remote_run.config["model"]["slug"]) == []

    mended = with_loss(remote_run, "own_losses:policy_gradient").run()
    assert mended.returncode == 0, mended.stderr
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=2)


def test_a_loss_that_is_not_there_is_said_before_anything_is_sampled(remote_run: Runner) -> None:
    done = with_loss(remote_run, "own_losses:policy_gradeint").run()

    assert done.returncode == 2
    assert "policy_gradient" in done.stderr
    assert remote_run.query("SELECT count(*) FROM rollouts") == [(0,)]


@pytest.mark.parametrize("loss", ["request", "answer"])
@pytest.mark.parametrize("suffix", ["/forward ", "/backward "])
def test_a_lost_call_of_ours_is_settled_and_never_repeated(
    remote_run: Runner, checkpoints: Tree, suffix: str, loss: Loss
) -> None:
    with_loss(remote_run, "gspo").write(run={"steps": 3})
    with lossy(remote_run.environ["HUD_RL_URL"], suffix=suffix, nth=2, loss=loss) as proxy:
        done = remote_run.run(HUD_RL_URL=proxy.url)
        sent = proxy.seen

    assert done.returncode == 0, done.stderr
    assert len(remote_run.events("step.abandoned")) == 1
    kind = suffix.strip(" /")
    assert remote_run.query("SELECT count(*) FROM calls WHERE kind = ?", (kind,)) == [(sent,)]
    assert remote_run.query("SELECT kind FROM calls WHERE ending IS NULL") == [(kind,)]
    assert_every_step_is_one_checkpoint(remote_run, checkpoints(remote_run.config["model"]["slug"]), steps=3)
