from __future__ import annotations

from hud_orchestrator.records import Batch, TrainableGroup
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.requests import Recipe, forward_backward_requests, optim_step_request
from tests.builders import group

RULE = GradingRule(treatments={}, scale_by=1, drop_no_spread=True)


def batch(*sizes: int) -> Batch:
    groups = []
    for number, size in enumerate(sizes):
        verdict = RULE.apply(group(number, rewards=tuple(float(i) for i in range(size))))
        assert isinstance(verdict, TrainableGroup)
        groups.append(verdict)
    return Batch(step=1, groups=tuple(groups))


def test_groups_are_contiguous_slices_of_one_call() -> None:
    (request,) = forward_backward_requests(batch(3, 3), Recipe(loss="ppo"))

    assert request.group_size == 3
    assert [one.trace_id for one in request.inputs if not isinstance(one, str)] == [
        f"trace-{g}-{m}" for g in range(2) for m in range(3)
    ]


def test_groups_that_lost_members_go_in_a_call_of_their_own() -> None:
    requests = forward_backward_requests(batch(4, 3, 4), Recipe(loss="ppo"))

    assert [(request.group_size, len(request.inputs)) for request in requests] == [(4, 8), (3, 3)]


def test_keys_that_an_older_service_would_refuse_are_left_out() -> None:
    (request,) = forward_backward_requests(batch(2), Recipe(loss="ppo"))

    assert set(request.model_dump(exclude_none=True)) == {
        "inputs", "loss_fn", "group_size", "reward_scale", "num_substeps"
    }  # fmt: skip
    step = optim_step_request(Recipe(loss="ppo"), learning_rate=1e-3)
    assert set(step.model_dump(exclude_none=True)) == {
        "learning_rate",
        "beta1",
        "beta2",
        "eps",
        "weight_decay",
    }
