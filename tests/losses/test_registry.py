from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hud_orchestrator.losses.client.differentiate import weights_of
from hud_orchestrator.losses.client.registry import CLIENT_LOSSES, resolve
from tests.losses.datums import DATA_OF_ONE, leaves_of

SOURCE = """
import torch

def double(data, logprobs, *, scale, shift=0.0):
    return scale * torch.cat(logprobs).sum() + shift, {"scale": scale}

def anything(data, logprobs, **settings):
    return torch.cat(logprobs).sum(), settings

def nothing():
    ...

async def later(data, logprobs):
    ...

number = 3
"""


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text(SOURCE)
    (package / "broken.py").write_text("import no_such_dependency\n")
    (package / "angry.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def test_a_name_with_settings_is_a_loss_that_uses_them() -> None:
    half, whole = (weights_of(resolve("dr_grpo", {"max_tokens": n}), DATA_OF_ONE) for n in (2000, 1000))
    assert whole.weights[0][0] == pytest.approx(2 * half.weights[0][0])
    assert whole.weights[0][0] != 0


def test_a_loss_of_the_users_is_imported_and_bound() -> None:
    result = weights_of(resolve("mine.losses:double", {"scale": 2.0, "shift": 1}), DATA_OF_ONE)
    assert result.weights == [[-2.0], [-2.0]]
    assert result.metrics["scale"] == 2.0
    assert weights_of(resolve("mine.losses:anything", {"free": 1.5}), DATA_OF_ONE).metrics["free"] == 1.5


@pytest.mark.parametrize(
    ("name", "config", "complaint"),
    [
        ("gpso", {}, '"gpso" is not a loss .* allowed: importance_sampling, .*; did you mean "gspo"'),
        ("ppo", {"eps_hi": 0.3}, '"ppo" takes no "eps_hi"; its keys: eps_low, .*; did you mean "eps_high"'),
        ("ppo", {"clip_low_threshold": 0.8}, 'takes no "clip_low_threshold"'),
        ("ppo", {"eps_low": 1.2}, "eps_low must be a finite number, from 0 to 1: .*; got 1.2"),
        ("ppo", {"eps_high": -0.1}, "eps_high must be .* 0 or more"),
        ("ppo", {"dual_clip": 1.0}, "dual_clip must be .* above 1"),
        ("ppo", {"eps_low": True}, "eps_low must be .* got True"),
        ("ppo", {"eps_low": "0.2"}, "eps_low must be .* got '0.2'"),
        ("tis", {"ratio_cap": float("inf")}, "ratio_cap must be a finite number"),
        ("tis", {"ratio_cap": float("nan")}, "ratio_cap must be a finite number"),
        ("icepop", {"mask_below": 6}, r"mask_below \(6\) must not exceed mask_above \(5.0\)"),
        ("cispo", {"clip_high_threshold": 1, "clip_low_threshold": 2}, "must not exceed clip_high_threshold"),
        ("dro", {"beta": 0}, "beta must be .* above 0"),
        ("dr_grpo", {"max_tokens": 0}, "max_tokens must be .* above 0"),
        (
            "dapo",
            {"advantage": "std"},
            "advantage must be one of group, group_std, leave_one_out, plain, got",
        ),
        ("dapo", {"kl": -1}, "kl must be .* 0 or more"),
        ("dapo", {"kl": 1, "kl_estimator": "k4"}, "kl_estimator must be one of k1, k2, k3, got 'k4'"),
        (
            "no_such_package.losses:f",
            {},
            'there is no module "no_such_package"; is its directory on PYTHONPATH',
        ),
        ("mine.missing:f", {}, 'there is no module "mine.missing"'),
        ("mine.broken:f", {}, "importing mine.broken raised ModuleNotFoundError: .*no_such_dependency"),
        ("mine.angry:f", {}, "importing mine.angry raised RuntimeError: not today"),
        ("mine.losses:doubel", {"scale": 1}, 'mine.losses has no "doubel"; did you mean "double"'),
        ("mine.losses:number", {}, "must be a function, got int"),
        ("mine.losses:later", {}, "must be a plain function, got an async one"),
        ("mine.losses:nothing", {}, r"must take \(data, logprobs\), takes \(\)"),
        (
            "mine.losses:double",
            {"scael": 1},
            'takes no "scael"; its keys: scale, shift; did you mean "scale"',
        ),
        ("mine.losses:double", {}, 'loss "mine.losses:double" needs "scale"'),
        ("mine/losses.py:double", {}, "must have the form package.module:function"),
        ("mine.losses:", {}, "must have the form package.module:function"),
    ],
)
def test_a_wrong_name_or_setting_is_told_in_one_line(
    name: str, config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        resolve(name, config)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "key"), [("ppo", "eps_low"), ("dapo", "kl"), ("gspo", "eps_high"), ("tis", "advantage")]
)
def test_a_loss_called_directly_checks_its_settings_too(name: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} must be"):
        CLIENT_LOSSES[name].function(DATA_OF_ONE, leaves_of(DATA_OF_ONE), **{key: -1.0})


def test_the_run_files_list_of_keys_is_the_registrys() -> None:
    from hud_orchestrator.config.losses import CLIENT_LOSS_KEYS

    assert {name: set(loss.defaults) for name, loss in CLIENT_LOSSES.items()} == {
        name: set(keys) for name, keys in CLIENT_LOSS_KEYS.items()
    }


def test_the_run_files_list_needs_no_torch() -> None:
    code = "import sys, hud_orchestrator.config.losses; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
