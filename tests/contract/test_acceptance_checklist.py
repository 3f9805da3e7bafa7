"""What a local server has to do to satisfy the SDK, one test or more per line of the checklist.

The docstring of each test quotes the line's subject. Everything goes over HTTP to ``serve``. The lines
about the gateway and about reporting are in ``test_acceptance_gateway.py``.
"""

from __future__ import annotations

import json
import math
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.contract.conftest import OPTIM_STEP, Contract

# Catalog


def test_the_model_list_has_items_and_total_and_pages_when_asked(contract: Contract) -> None:
    """GET /v2/models: object with `items` and `total`; honour `limit`/`offset`."""
    made = [contract.fork()["model_name"] for _ in range(2)]

    whole = contract.get("/v2/models")
    pages = [contract.get("/v2/models", limit=1, offset=at) for at in range(whole["total"])]
    behind = contract.get("/v2/models", limit=100, offset=whole["total"])

    assert len(whole["items"]) == whole["total"]
    assert [item for page in pages for item in page["items"]] == whole["items"]
    assert behind["items"] == []
    assert set(made) <= {item["model_name"] for item in whole["items"]}


def test_every_model_has_what_an_agent_needs(contract: Contract) -> None:
    """Each item has string `id`, string `model_name`, `sdk_agent_type`, `is_trainable`, `provider`."""
    fork = contract.fork()

    items = contract.get("/v2/models")["items"]

    for item in items:
        assert isinstance(item["id"], str)
        assert isinstance(item["model_name"], str)
        assert item["sdk_agent_type"] == "openai_compatible"
        assert isinstance(item["provider"]["name"], str)
    trainable = {item["model_name"]: item["is_trainable"] for item in items}
    assert trainable[fork["model_name"]] is True
    assert trainable["tiny"] is False


def test_a_slug_resolves_percent_encoded(contract: Contract) -> None:
    """GET /v2/models/resolve?model=: decode the percent-encoded slug, 404 + `detail` otherwise."""
    fork = contract.fork(f"team/sums-{uuid.uuid4().hex[:8]}")
    encoded = quote(fork["model_name"], safe="")

    found = contract.http.get(f"/v2/models/resolve?model={encoded}")
    missing = contract.http.get("/v2/models/resolve?model=no%2Fsuch")

    assert "%2F" in encoded
    assert found.json()["id"] == fork["id"]
    assert missing.status_code == 404
    assert missing.json()["detail"]


def test_a_fork_is_answered_with_its_entry_or_refused(contract: Contract) -> None:
    """POST /v2/models/fork: 200 + item (`id`, `model_name`, `name`), 404 unknown source, 409 taken name."""
    fork = contract.fork()

    unknown = contract.post("/v2/models/fork", {"source_model_id": str(uuid.uuid4()), "name": "new"})
    again = contract.post("/v2/models/fork", {"source_model_id": fork["id"], "name": fork["model_name"]})

    assert {"id", "model_name", "name"} <= fork.keys()
    assert [unknown.status_code, again.status_code] == [404, 409]
    assert unknown.json()["detail"]
    assert again.json()["detail"]


def test_checkpoints_are_a_bare_array_with_one_active_node(contract: Contract) -> None:
    """GET /v2/models/{id}/checkpoints: bare array, oldest first, exactly one `is_active`, flat metrics."""
    fork = contract.fork()
    before = contract.tree(fork)
    made = [contract.step(fork)["checkpoint_id"] for _ in range(3)]
    contract.http.put(f"/v2/models/{fork['id']}/head", json={"checkpoint_id": made[1]})

    nodes = contract.tree(fork)

    assert before == []
    assert [node["id"] for node in nodes] == made
    assert [node["is_active"] for node in nodes] == [False, True, False]
    assert [node["prev_model_checkpoint_id"] for node in nodes] == [None, *made[:2]]
    for node in nodes:
        assert node["metrics"]
        assert all(_is_finite_number(figure) for figure in node["metrics"].values())


def test_setting_the_head_is_idempotent_and_answers_json(contract: Contract) -> None:
    """PUT /v2/models/{id}/head: JSON body on success, idempotent, 404 unknown checkpoint."""
    fork = contract.fork()
    first = contract.step(fork)["checkpoint_id"]
    contract.step(fork)
    path = f"/v2/models/{fork['id']}/head"

    replies = [contract.http.put(path, json={"checkpoint_id": first}) for _ in range(2)]
    unknown = contract.http.put(path, json={"checkpoint_id": "nothing"})

    assert [reply.status_code for reply in replies] == [200, 200]
    assert all(isinstance(reply.json(), dict) for reply in replies)
    assert [node["id"] for node in contract.tree(fork) if node["is_active"]] == [first]
    assert unknown.status_code == 404
    assert unknown.json()["detail"]


def test_the_id_of_the_catalog_is_the_id_in_paths(contract: Contract) -> None:
    """`{id}` in paths is whatever the catalog returned; UUID handles arrive lower-cased and dashed."""
    fork = contract.fork()

    losses = contract.get(f"/v1/models/{fork['id']}/train/losses")

    assert fork["id"] == str(uuid.UUID(fork["id"].upper()))
    assert "importance_sampling" in losses["losses"]


# Training


def _is_finite_number(figure: Any) -> bool:
    return isinstance(figure, int | float) and not isinstance(figure, bool) and math.isfinite(figure)


def _strictly(reply: httpx.Response) -> dict[str, Any]:
    """The body of a success; ``NaN`` and its like are not JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {reply.text}")

    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = json.loads(reply.text, parse_constant=refuse)
    return body


def test_replies_to_training_calls_have_the_documented_keys_only(contract: Contract) -> None:
    """Only the documented keys in replies; every number finite; strings non-null."""
    fork = contract.fork()
    inputs = contract.inputs(fork["model_name"])

    losses = contract.get(f"/v1/models/{fork['id']}/train/losses")
    trained = _strictly(contract.train(fork, "forward-backward", {"inputs": inputs, "loss_fn": "ppo"}))
    ahead = _strictly(contract.train(fork, "forward", {"inputs": inputs, "reward_scale": 1.0}))
    weights = [[0.5 * flag for flag in datum["mask"]] for datum in ahead["data"]]
    body = {"forward_id": ahead["forward_id"], "weights": weights, "metrics": {"masked_tokens": 2.0}}
    back = _strictly(contract.train(fork, "backward", body))
    stepped = _strictly(contract.train(fork, "optim-step", OPTIM_STEP))

    assert isinstance(losses["losses"], list)
    for result in (trained, back):
        assert result.keys() == {"metrics", "num_datums"}
        assert all(_is_finite_number(figure) for figure in result["metrics"].values())
    assert back["metrics"]["masked_tokens"] == 2.0
    assert ahead.keys() == {"forward_id", "data"}
    for datum in ahead["data"]:
        tensors = {"logprobs", "sampling_logprobs", "mask"}
        assert (
            {"reward", "traj_idx"} | tensors <= datum.keys() <= {"reward", "traj_idx", "group_idx"} | tensors
        )
        assert len({len(datum[name]) for name in tensors}) == 1
    assert stepped.keys() == {"step", "checkpoint_id", "sampler_path", "state_path", "model"}
    assert all(isinstance(stepped[key], str) for key in stepped if key != "step")


def test_inline_trajectories_and_trace_ids_mix(contract: Contract) -> None:
    """Accept `inputs` items of both kinds in one request."""
    fork = contract.fork()
    inline, traces = contract.inputs(fork["model_name"]), [contract.recorded(fork["model_name"], 0.25)]

    reply = contract.train(fork, "forward", {"inputs": [inline[0], *traces, inline[1]], "reward_scale": 1.0})

    assert [datum["reward"] for datum in _strictly(reply)["data"]] == [1.0, 0.25, 0.0]


def test_one_unknown_trace_id_refuses_the_whole_request(contract: Contract) -> None:
    """Resolve bare ids or reject the whole request with a 4xx naming them."""
    fork = contract.fork()
    known, unknown = contract.recorded(fork["model_name"], 1.0), uuid.uuid4().hex

    refused = contract.train(fork, "forward-backward", {"inputs": [known, unknown]})
    nothing = contract.train(fork, "optim-step", OPTIM_STEP)

    assert 400 <= refused.status_code < 500
    assert unknown in refused.json()["detail"]
    assert nothing.status_code == 409


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ({"group_size": 2}, "group_size"),
        ({"output_logprobs": [-0.1]}, "output_logprobs"),
        ({"prompt_token_ids": None}, "prompt"),
        ({"prompt_token_ids": []}, "prompt"),
    ],
)
def test_what_the_sdk_does_not_check_is_checked(
    contract: Contract, mistake: dict[str, Any], told: str
) -> None:
    """Check `len(inputs) % group_size == 0`, the lengths for ratio losses, and that prompts exist."""
    fork = contract.fork()
    inputs = contract.inputs(fork["model_name"], (1.0, 0.0, 1.0))
    body: dict[str, Any] = {"inputs": inputs, "loss_fn": "importance_sampling"}
    if "group_size" in mistake:
        body |= mistake
    else:
        inputs[1]["samples"][0] |= mistake

    refused = contract.train(fork, "forward-backward", body)

    assert refused.status_code == 422
    assert told in refused.json()["detail"]
    assert contract.train(fork, "optim-step", OPTIM_STEP).status_code == 409


def test_a_step_whose_client_has_vanished_ends_as_the_checkpoints_tell(contract: Contract) -> None:
    """Detached handlers: finish or roll back deterministically; the truth is in `checkpoints`."""
    fork = contract.fork()
    contract.train(fork, "forward-backward", {"inputs": contract.inputs(fork["model_name"])})
    body = json.dumps(OPTIM_STEP).encode()
    where = urlsplit(contract.addresses["HUD_RL_URL"])
    head = (
        f"POST /v1/models/{fork['id']}/train/optim-step HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {contract.addresses['HUD_API_KEY']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    with socket.create_connection((where.hostname, where.port)) as vanishing:
        vanishing.sendall(head.encode() + body)
    repeated = contract.train(fork, "optim-step", OPTIM_STEP)
    nodes = contract.tree(fork)

    # Either the first call took what had accumulated or the second did; never both, never neither.
    assert repeated.status_code in (200, 409)
    assert [node["is_active"] for node in nodes] == [True]
    if repeated.status_code == 200:
        assert repeated.json()["checkpoint_id"] == nodes[0]["id"]


def test_of_two_steps_at_once_one_finds_nothing_left(contract: Contract) -> None:
    """Serialize per model: two concurrent optim-steps are indistinguishable from a retry."""
    fork = contract.fork()
    contract.train(fork, "forward-backward", {"inputs": contract.inputs(fork["model_name"])})

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(contract.train, fork, "optim-step", OPTIM_STEP) for _ in range(2)]
        statuses = sorted(call.result().status_code for call in calls)

    assert statuses == [200, 409]
    assert len(contract.tree(fork)) == 1


def test_a_long_call_holds_up_nobody_else_and_is_answered_whole(contract: Contract) -> None:
    """Long calls: reply within 600 s of silence; meanwhile the other routes answer."""
    fork = contract.fork()
    inputs = contract.inputs(fork["model_name"]) * 400

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(contract.train, fork, "forward-backward", {"inputs": inputs, "group_size": 2})
        contract.chat("tiny")
        contract.get("/v2/models")
        reply = call.result()

    assert _strictly(reply)["num_datums"] == 800
    assert reply.headers["content-type"] == "application/json"


# Process layout


async def test_a_blocking_client_on_an_event_loop_is_served(contract: Contract) -> None:
    """Never serve the catalog from the event loop on which `create_agent` runs: it blocks that loop."""
    assert contract.get("/v2/models")["total"] >= 1


def test_every_address_the_sdk_reads_is_exported(contract: Contract) -> None:
    """Export all URLs before `import hud`: the environment file has each of them."""
    urls = {name: contract.addresses[name] for name in contract.addresses if name.startswith("HUD_")}

    assert {"HUD_API_URL", "HUD_RL_URL", "HUD_GATEWAY_URL", "HUD_TELEMETRY_URL", "HUD_API_KEY"} <= urls.keys()
    assert {urlsplit(url).hostname for name, url in urls.items() if name.endswith("_URL")} == {"127.0.0.1"}
    assert urls["HUD_TELEMETRY_URL"].endswith("/v3/api")
