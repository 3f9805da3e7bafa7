"""The models that need no download."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases import prepare
from hud_orchestrator.local.bases.cache import built_once
from hud_orchestrator.records import Task
from hud_orchestrator.tasksets.files import load_path

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def tiny(cache_home: Path) -> Path:
    return prepare("tiny", cache_dir=cache_home, seed=0)


def loaded(directory: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    return model, AutoTokenizer.from_pretrained(directory)


def answers(directory: Path, prompts: Sequence[str], *, sample: bool) -> list[str]:
    """What the model at *directory* says to each prompt."""
    model, tokenizer = loaded(directory)
    found = []
    torch.manual_seed(0)
    for prompt in prompts:
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=sample, max_new_tokens=8)
        found.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return found


async def reward(directory: Path, example: str, *, sample: bool) -> float:
    """Mean reward on all of the example's held-out tasks; a part of them may be far easier."""
    source = EXAMPLES / example / "tasks.py"
    tasks: Sequence[Task] = load_path(source, member="heldout")
    placement = InProcess(source, teardown_s=1)
    prompts = []
    for task in tasks:
        async with placement.episode(task) as episode:
            prompts.append(str(episode.prompt[0]["content"]))
    said = await asyncio.to_thread(answers, directory, prompts, sample=sample)
    total = 0.0
    for task, answer in zip(tasks, said, strict=True):
        async with placement.episode(task) as episode:
            total += float((await episode.grade(answer))["score"])
    return total / len(tasks)


@pytest.mark.parametrize("example", ["arithmetic", "sorting"])
@pytest.mark.parametrize("sample", [False, True])
async def test_tiny_begins_where_there_is_something_to_learn(tiny: Path, example: str, sample: bool) -> None:
    assert 0.2 <= await reward(tiny, example, sample=sample) <= 0.5


def test_tiny_is_the_same_to_the_bit_for_a_seed_and_touches_nobody_elses(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), torch.get_num_threads()
    again = prepare("tiny", cache_dir=tmp_path, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}
        for directory in (tiny, again)
    ]

    assert digests[0] == digests[1]


def test_tiny_reads_and_writes_any_text(tiny: Path) -> None:
    _, tokenizer = loaded(tiny)

    for text in ("12+34=", "Straße, 東京, 🦆", "a\tb\n", ""):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_smollm2_is_the_real_model_with_its_chat_template(cache_home: Path) -> None:
    directory = prepare("smollm2-135m", cache_dir=cache_home, seed=0)
    model, tokenizer = loaded(directory)

    assert sum(p.numel() for p in model.parameters()) == pytest.approx(134.5e6, rel=0.01)
    assert model.config.max_position_embeddings == BUNDLED_CONTEXT["smollm2-135m"]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text.endswith("<|im_start|>assistant\n")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_a_name_that_is_no_base_is_told_what_is() -> None:
    with pytest.raises(ConfigError, match="tiny or smollm2-135m"):
        prepare("gigantic", cache_dir=Path("nowhere"), seed=0)


def test_two_that_ask_at_once_get_one_that_was_built_once(tmp_path: Path) -> None:
    built: list[Path] = []
    both = threading.Barrier(2)

    def build(directory: Path) -> None:
        built.append(directory)
        (directory / "config.json").write_text("{}")

    def ask() -> None:
        both.wait(5)
        built_once(tmp_path / "model", build)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(built) == 1
    assert (tmp_path / "model" / "config.json").read_text() == "{}"


def test_a_build_that_fails_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        built_once(tmp_path / "model", fail)

    assert not (tmp_path / "model").exists()
    built_once(tmp_path / "model", lambda directory: (directory / "whole").touch())
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]
