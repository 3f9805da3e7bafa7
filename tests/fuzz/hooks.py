"""Lets a part of the requests that Schemathesis makes up name what exists.

Made-up ids reach no further than 404. So before a request is sent, some of what it names is replaced.
What is replaced depends on the request alone: the same request is changed in the same way again, so a
failure can be repeated and made smaller. Schemathesis looks anew at what was changed, and so knows
whether the request still breaks its schema.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import uuid
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core import NotSet

from hud_orchestrator.wire_writer import FENCING_TOKEN
from tests.fuzz.service import Known, meet

LOSSES = ["cross_entropy", "importance_sampling", "ppo", "cispo", "dro"]
_tally: defaultdict[str, Counter[int]] = defaultdict(Counter)
"""Replies by operation and status."""


@functools.cache
def known() -> Known:
    """What exists."""
    return meet(os.environ["FUZZ_URL"], os.environ["FUZZ_KEY"])


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Replace ids, and bodies' parts that only make sense together."""
    dice = random.Random(repr((case.method, case.path, case.path_parameters, case.body, case.query)))
    path, body = case.operation.path, case.body
    for name, value in dict(case.headers or {}).items():
        if not str(value).isprintable():
            # A control character in a header is no HTTP, and is refused before there is a path.
            case.headers[name] = "x"
    if FENCING_TOKEN in (case.headers or {}) and dice.random() < 0.9:
        # A token that nobody was given is refused before anything else is looked at.
        del case.headers[FENCING_TOKEN]
    if case.path_parameters and dice.random() < 0.9:
        case.path_parameters = {"id": _existing(path, dice)}
    if path.endswith("/lease") and case.method in ("PUT", "DELETE") and dice.random() < 0.85:
        case.headers[FENCING_TOKEN] = known().fencing_token()
    if case.query and "model" in case.query and dice.random() < 0.5:
        case.query = {"model": "tiny"}
    if path.endswith("telemetry-upload") and not isinstance(body, NotSet) and dice.random() < 0.8:
        case.body = _telemetry(body, dice)
    elif isinstance(body, dict) and dice.random() < 0.9:
        changed = _SENSIBLE.get(path.rsplit("/", 1)[-1], lambda *_: {})(body, case, dice)
        if changed:
            case.body = {**body, **changed}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count what was answered, but for the methods that an operation does not have."""
    if response.status_code != 405:
        _tally[case.operation.label][response.status_code] += 1


@atexit.register
def tell() -> None:
    """Leave the counts where the program that started us finds them."""
    Path(os.environ["FUZZ_TALLY"]).write_text(json.dumps(_tally))


@schemathesis.check
def busy_says_when_to_come_back(context: Any, response: Any, case: Any) -> None:
    """A 503 while the service is not stopping has a Retry-After."""
    assert response.status_code != 503 or "retry-after" in response.headers, "503 without Retry-After"


@schemathesis.check
def refusals_are_one_line(context: Any, response: Any, case: Any) -> None:
    """Every refusal has one line of text, whatever the path."""
    if response.status_code >= 400 and case.method != "HEAD":
        detail = response.json()["detail"]
        assert detail, "the detail is empty"
        assert detail.splitlines() == [detail], f"the detail has several lines: {detail!r}"


def _existing(path: str, dice: random.Random) -> str:
    if "/tasksets/" in path:
        return "fuzz" if "/by-name/" in path else known().taskset
    if path.startswith("/v2/jobs") or "/job/" in path:
        return known().job
    if "/trace/" in path:
        # Reports go elsewhere, or the trace could not be trained on any more.
        return uuid.UUID(int=dice.getrandbits(3)).hex if "{id}/" in path else known().trace
    if path.endswith("/lease"):
        return known().leased
    if path.startswith("/runtime"):
        return known().lease()
    if path.endswith("optim-step"):
        return known().victim
    return dice.choice([known().steady] * 5 + [known().victim, known().base])


def _batch(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    case.path_parameters = {"id": known().steady}
    inputs: list[Any] = [*known().inputs, *([known().trace] * (dice.random() < 0.3))]
    changed: dict[str, Any] = {"inputs": inputs}
    if "reward_scale" in body and dice.random() < 0.9:
        changed["reward_scale"] = 1.0
    if "loss_fn" in body:
        changed |= {"loss_fn": dice.choice(LOSSES), "loss_fn_config": None}
    return changed | ({"group_size": None} if "group_size" in body and dice.random() < 0.9 else {})


def _backward(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    case.path_parameters = {"id": known().steady}
    forward_id, mask = known().forward(known().steady)
    scale = dice.choice([1.0, -1e-3, 1e30, 1e300])
    return {"forward_id": forward_id, "weights": [[scale * one for one in row] for row in mask]}


def _optim_step(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    model = dice.choice([known().steady, known().victim])
    case.path_parameters = {"id": model}
    # So that there is something to step on.
    known().http.post(f"/v1/models/{model}/train/forward-backward", json={"inputs": known().inputs})
    if model == known().victim:
        return {}
    return {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.0}


def _chat(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    changed: dict[str, Any] = {"model": dice.choice([known().steady, known().steady, known().victim, "tiny"])}
    if dice.random() < 0.5:
        changed["messages"] = [{"role": "user", "content": "12+3="}]
    if dice.random() < 0.7:
        changed["checkpoint"] = None
    if dice.random() < 0.7:
        changed |= {"prompt_token_ids": None, "continuation_from": None}
    if dice.random() < 0.9:
        # Without a limit a reply is as long as the context.
        changed |= {"max_tokens": dice.randrange(1, 9), "max_completion_tokens": None}
    return changed


def _head(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    model = dice.choice([known().steady, known().victim])
    case.path_parameters = {"id": model}
    return {"checkpoint_id": dice.choice(known().checkpoints(model))}


def _fork(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    source = dice.choice([known().base, known().steady])
    changed: dict[str, Any] = {"source_model_id": source, "checkpoint_id": None}
    return changed | ({"name": f"fuzz-{dice.getrandbits(32):x}"} if dice.random() < 0.3 else {})


def _submit(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    sampling = {"max_tokens": dice.randrange(1, 5)}
    config = {"model": known().slug, "max_steps": 1, "completion_kwargs": sampling}
    return {
        "trace_id": str(uuid.UUID(int=dice.getrandbits(128))),
        "env": "sums",
        "task": dice.choice(["add", "add", "subtract"]),
        "args": dice.choice([{}, {"a": 1}, {"c": 3}, body.get("args")]),
        "agent": {"type": "openai_compatible", "config": config},
        "verifier": None,
        # Made-up limits are years, and years are waited for.
        "runtime_config": None,
    }


def _cancel(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    return {"trace_id": known().trace}


def _lease(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    return {"environment": "sums"} if dice.random() < 0.7 else {}


def _writer(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    if dice.random() < 0.7:
        # So that nobody has it.
        case.path_parameters = {"id": known().leased}
        known().give_back()
    return {"owner": dice.choice("ab"), "claim": dice.randrange(1, 9), "holder": "fuzz", "ttl_s": 60}


def _upload(body: dict[str, Any], case: Any, dice: random.Random) -> dict[str, Any]:
    return {"taskset_id": dice.choice([None, known().taskset])}


def _telemetry(body: Any, dice: random.Random) -> Any:
    """Spans with samples, some of them with what was made up where a number should be."""
    numbers = dice.choice([[1, 2], [-1], [2**70], [body]])
    sample = {"prompt_token_ids": [1], "output_token_ids": numbers, "output_logprobs": [-1.0]}
    payload = {"step_id": dice.choice([1, 1e300, body]), "sample": sample}
    return {"telemetry": [{"span_id": dice.choice(["a", body]), "attributes": {"hud.payload": payload}}]}


_SENSIBLE: dict[str, Any] = {
    "forward-backward": _batch,
    "forward": _batch,
    "backward": _backward,
    "optim-step": _optim_step,
    "completions": _chat,
    "head": _head,
    "fork": _fork,
    "upload": _upload,
    "submit": _submit,
    "cancel": _cancel,
    "sessions": _lease,
    "lease": _writer,
}
"""By the end of the path: what to change in a body so that it may be accepted."""
