"""What the documentation lists is what the code has: losses, routes, errors, methods, metrics, limits."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import torch
from pydantic import SecretStr
from starlette.routing import Route

from hud_orchestrator import TrainingClient, errors
from hud_orchestrator.config.fields import leaves
from hud_orchestrator.config.guards import Metric
from hud_orchestrator.config.local import KeepSection
from hud_orchestrator.config.outcomes import OutcomesSection
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.local import bodies, forwards, once, service, traces
from hud_orchestrator.local.app import build_app
from hud_orchestrator.local.catalog import Catalog
from hud_orchestrator.local.chat_request import ChatRequest
from hud_orchestrator.local.hosting.host import hosting
from hud_orchestrator.local.settings import ServiceSettings
from hud_orchestrator.losses.client.registry import CLIENT_LOSSES
from hud_orchestrator.losses.registry import BUILT_IN
from hud_orchestrator.records import Outcome, Treatment
from hud_orchestrator.rules.guards import EVAL_REWARD, FIGURES
from hud_orchestrator.wire import Checkpoint, DatumTensors
from tests.docs.blocks import PAGES

ROOT = Path(__file__).parents[2]
SHARED_KEYS = ("advantage", "kl", "kl_estimator")


def text(page: str) -> str:
    return (PAGES / page).read_text()


def table(page: str, heading: str) -> dict[str, str]:
    """The second column of the first table under *heading*, by the first, which is one word of code."""
    after = text(page).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", after, re.MULTILINE))


def told(values: Mapping[str, object]) -> str:
    """Keys and defaults as the tables write them."""
    return ", ".join(f"`{key}` {value}" for key, value in values.items()) or "none"


def test_the_table_of_guarded_figures_has_every_one() -> None:
    after = text("rollback.md").split("\n## Guards\n", 1)[1].split("| `action` |", 1)[0]
    told = re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\| (`[^|]*) \|", after, re.MULTILINE)))

    assert sorted(told[1:]) == sorted(get_args(Metric))
    assert set(get_args(Metric)) == {EVAL_REWARD, *FIGURES}


def test_the_tables_of_losses_have_every_loss_key_and_default() -> None:
    built_in = table("losses.md", "Built into the service")
    client = table("losses.md", "Computed on the client")

    assert built_in == {name: told(loss.defaults) for name, loss in BUILT_IN.items()}
    for name, loss in CLIENT_LOSSES.items():
        own = {key: value for key, value in loss.defaults.items() if key not in SHARED_KEYS}
        assert client.pop(name) == told(own)
        advantage = "group_std" if name in ("dapo", "gspo") else "group"
        assert [loss.defaults[key] for key in SHARED_KEYS] == [advantage, 0.0, "k3"]
    assert tuple(client) == SHARED_KEYS


async def test_the_table_of_routes_has_every_route_and_no_other(tmp_path: Path) -> None:
    settings = ServiceSettings(state_dir=tmp_path, api_key=SecretStr("k"))
    served = service.Service(settings, Catalog(tmp_path, []))
    async with hosting(settings, served.traces, {}, url="http://127.0.0.1:1") as hosted:
        app = build_app(served, hosted)
    real = {
        (method, re.sub(r"\{\w+", "{id", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }

    assert set(re.findall(r"`(GET|POST|PUT|DELETE) (/\S+)`", text("service.md"))) == real


def test_every_key_of_a_chat_completion_and_every_status_is_explained() -> None:
    page = text("service.md")
    sources = (ROOT / "hud_orchestrator" / "local").rglob("*.py")
    statuses = {status for path in sources for status in re.findall(r"Refused\(\s*(\d{3})", path.read_text())}

    assert [key for key in ChatRequest.model_fields if f"`{key}`" not in page] == []
    assert "422" in statuses
    assert sorted(status for status in statuses if f"| {status} |" not in page) == []


def test_the_table_of_outcomes_has_every_one_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| (?:`(\w+)` )?\|$", text("deadlines.md"), re.MULTILINE)
    treatments = {"finished": "", "cancelled": "", **OutcomesSection().model_dump()}

    assert dict(rows) == treatments
    assert {outcome.value for outcome in Outcome} == set(treatments)
    assert set(Treatment) <= set(re.findall(r"^\| `(\w+)` \|", text("deadlines.md"), re.MULTILINE))


def test_every_error_of_the_services_is_explained() -> None:
    explained = table("training-client.md", "Errors")
    kinds = [one for one in vars(errors).values() if inspect.isclass(one) and one is not errors.ServiceError]
    of_services = {kind.__name__ for kind in kinds if issubclass(kind, errors.ServiceError)}

    assert of_services | {"ConfigError", "NotFound", "ValueError"} == set(explained)


def test_every_method_is_listed_with_its_keywords() -> None:
    listed = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", text("training-client.md"), re.MULTILINE))
    real = {name: one for name, one in vars(TrainingClient).items() if not name.startswith("_")}

    assert set(listed) == set(real)
    for name, method in real.items():
        for parameter in re.findall(r"\w+", listed[name]):
            assert parameter in inspect.signature(method).parameters, name


@pytest.fixture
def client(served: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TrainingClient:
    """A client of a fresh fork."""
    for name in ("HUD_API_KEY", "HUD_API_URL", "HUD_RL_URL"):
        monkeypatch.setenv(name, served[name])
    command = [sys.executable, "-m", "hud_orchestrator", "models", "fork", "tiny", "--name", "facts"]
    subprocess.run(command, env=served, cwd=tmp_path, check=True, capture_output=True, timeout=180)
    return TrainingClient("facts")


async def test_every_metric_and_field_is_explained(client: TrainingClient) -> None:
    turn = {"prompt_token_ids": [65], "output_token_ids": [67], "output_logprobs": [-2.0]}
    pair = [{"samples": [turn], "reward": reward} for reward in (0.0, 1.0)]

    def loss(_: list[DatumTensors], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        return torch.stack([leaf.sum() for leaf in logprobs]).sum(), {}

    built_in = await client.forward_backward(pair, call="built-in")
    custom = await client.forward_backward_custom(pair, "ppo", call="ours")
    own = await client.forward_backward_custom(pair, loss, call="own")
    await client.optim_step(call="step", learning_rate=1e-4)
    head = await client.head()

    assert head is not None
    page, losses, tree = text("training-client.md"), text("losses.md"), text("checkpoints.md")
    for name in built_in.metrics:
        assert f"`{name}`" in page.split("## Results and metrics")[1]
    for name in custom.metrics.keys() - own.metrics.keys():
        assert f"`{name}`" in losses
    for name in [*Checkpoint.model_fields, *(head.metrics.keys() - own.metrics.keys())]:
        assert f"`{name}`" in tree
    for name in DatumTensors.model_fields:
        assert f"| `{name}` |" in page


def test_the_limits_are_those_of_the_code() -> None:
    page, keep = text("training-client.md"), table("checkpoints.md", "Retention")

    assert f"{traces.KEPT_TOKENS:,} tokens" in page
    assert f"{traces.KEPT_TRACES:,} traces" in page
    assert f"the latest {once.REMEMBERED_KEYS} outcomes" in page
    assert f"the latest {service.REMEMBERED_FORWARDS}," in page
    assert forwards.LIVE_FORWARDS == 8
    assert "eight newer forwards" in page
    assert f"{bodies.MAX_BODY >> 20} MiB" in text("service.md")
    assert keep == {"last": "20", "every": "none", "best": "true"}
    assert KeepSection().model_dump() == {"last": 20, "every": None, "best": True}


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """The hook that makes pages from the code."""
    spec = spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_have_every_key_and_command(generated: ModuleType) -> None:
    keys, commands = generated.run_file_page(), generated.cli_page()

    assert [key for key, _ in leaves(RunFile) if f"### `{key}`" not in keys] == []
    for command in ("init", "validate", "schema", "run", "curve", "serve", "models export"):
        assert f"# `hud-orchestrate {command}`" in commands


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]

    done = subprocess.run(
        [*command, "-f", str(ROOT / "docs" / "mkdocs.yml")],
        capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "TrainingClient" in (tmp_path / "api" / "training-client.html").read_text()
