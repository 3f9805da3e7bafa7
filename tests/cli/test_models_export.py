"""``models export``: what transformers and PEFT load speaks as the gateway does."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.models_world import Models

PROMPT = "7+8="


def continued(model: Any, choice: dict[str, Any]) -> list[int]:
    """The tokens that *model* finds likeliest after the prompt of *choice*."""
    import torch

    prompt = torch.tensor([choice["prompt_token_ids"]])
    tokens = model.eval().generate(
        prompt, do_sample=False, max_new_tokens=len(choice["token_ids"]), attention_mask=prompt.ge(0)
    )
    return list(tokens[0, prompt.shape[1] :].tolist())


def test_a_fully_trained_model_loads_in_transformers_and_says_the_same(
    models: Models, cache_home: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    slug = models.forked()
    first, _ = models.step(slug), models.step(slug, learning_rate=0.3)
    served = {one: models.greedy(slug, PROMPT, checkpoint=one) for one in (first,)}
    served["head"] = models.greedy(slug, PROMPT)

    # From the service that runs, and from its state directory.
    said = models("export", slug, "head", "--cache", cache_home)
    state = models.state_of(slug)
    older = models(
        "export", slug, tmp_path / first, "--checkpoint", first[:8], "--state", state, "--cache", cache_home
    )

    assert (said.code, said.err, older.code) == (0, "", 0)
    for where, choice in served.items():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / where)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / where)
        message = [{"role": "user", "content": PROMPT}]
        prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        assert prompt == choice["prompt_token_ids"]
        assert continued(model, choice) == choice["token_ids"]
    assert served["head"]["token_ids"] != served[first]["token_ids"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT calls what transformers has renamed
def test_an_adapter_loads_in_peft_over_its_base_and_merged_without_it(models: Models, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tests.local.local_world import make_model, running

    base, state = make_model(tmp_path / "base"), tmp_path / "run" / "service"
    adapted = {"parameters": "lora", "lora": {"rank": 4, "alpha": 12, "targets": ["q_proj", "down_proj"]}}

    async def trained() -> list[dict[str, Any]]:
        async with running(state, base, local=adapted) as world:
            model = await world.fork("adapted")
            for _ in range(3):
                await world.learn(model, learning_rate=0.1)
            said = [await world.chat(one, temperature=0) for one in ("adapted", str(base))]
            return [completion["choices"][0] for completion in said]

    choice, untrained = asyncio.run(trained())
    adapter = models("export", "adapted", "adapter", "--state", tmp_path / "run")
    merged = models("export", "adapted", "merged", "--state", state, "--merge")

    assert (adapter.code, merged.code) == (0, 0)
    assert choice["token_ids"] != untrained["token_ids"]
    over = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    assert continued(PeftModel.from_pretrained(over, tmp_path / "adapter"), choice) == choice["token_ids"]
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert continued(alone, choice) == choice["token_ids"]


def test_what_cannot_be_exported_is_said_in_one_line_and_nothing_is_written(
    models: Models, tmp_path: Path
) -> None:
    slug = models.forked()
    fresh = models("export", slug, "out")
    models.step(slug)
    models.step(slug)
    state = models.state_of(slug)
    oldest = Path(models("checkpoints", slug, "--json").json()[0]["checkpoint_name"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()

    taken = models("export", slug, "full")
    unknown = models("export", f"{slug}x", "out")
    unknown_there = models("export", f"{slug}x", "out", "--state", state)
    base = models("export", "tiny", "out")
    oldest.unlink()
    pruned = models("export", slug, "out", "--checkpoint", "step-000001", "--state", state)
    elsewhere = models("export", slug, "out", "--state", tmp_path)

    for said, words in {
        fresh: "no checkpoint yet",
        taken: "not an empty directory",
        unknown: slug,
        unknown_there: slug,
        base: "is a base model",
        pruned: "were pruned",
        elsewhere: "holds no models",
    }.items():
        assert (said.code, said.out) == (2, "")
        assert words in said.err
        assert said.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_models_of_a_run_that_has_ended_are_asked_by_its_directory(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = models.forked()
    checkpoint = models.step(slug)
    state = models.state_of(slug)
    shutil.copytree(state / "models", tmp_path / "run" / "service" / "models")
    monkeypatch.delenv("HUD_API_KEY")

    held = models("list", "--state", state)
    said = models("checkpoints", slug, "--quiet", "--state", tmp_path / "run")

    assert (held.code, held.out) == (75, "")
    assert "--env-file" in held.err
    assert (said.code, said.out.split(), said.err) == (0, [checkpoint], "")
    # Whoever comes next finds the directory free.
    with (tmp_path / "run" / "service" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
