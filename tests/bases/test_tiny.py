"""The base that the project makes itself: its measure, its tokenizer, and what making it leaves alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.local.bases.bytes_tokenizer import bytes_tokenizer
from hud_orchestrator.local.bases.exercises import Subject, draw, is_reserved
from hud_orchestrator.local.bases.lessons import lesson, measure
from hud_orchestrator.tasksets.files import load_path

EXAMPLES = Path(__file__).parents[2] / "examples"
SUBJECTS: tuple[Subject, ...] = ("arithmetic", "sorting")


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), AutoTokenizer.from_pretrained(
        tiny
    )


def held_out(example: str) -> list[tuple[str, str]]:
    """Prompts and right answers of the example's held-out tasks."""
    rows = [task.args for task in load_path(EXAMPLES / example / "tasks.py", member="heldout")]
    if example == "arithmetic":
        return [(f"{row['a']}+{row['b']}=", str(row["a"] + row["b"])) for row in rows]
    return [(f"sort {row['digits']}", "".join(sorted(row["digits"]))) for row in rows]


def test_what_the_measure_expects_is_what_sampling_gives(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    torch.manual_seed(0)
    exercises = held_out("arithmetic")
    chats = [[{"role": "user", "content": prompt}] for prompt, _ in exercises]
    # Every sum is as long as every other, so that the batch needs no padding.
    batch = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_tensors="pt")
    replies = model.generate(**batch, do_sample=True, max_new_tokens=6, num_return_sequences=8, top_k=0)
    texts = tokenizer.batch_decode(replies[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [text == exercises[index // 8][1] for index, text in enumerate(texts)]

    # 736 samples: three standard deviations of the share are below 0.06.
    expected = measure(model, lesson(exercises, tokenizer)).sampled
    assert sum(right) / len(right) == pytest.approx(expected, abs=0.06)


def test_padding_at_the_end_does_not_change_a_measure() -> None:
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer(context=64)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )
    exercises = [("1+1=", "2"), ("12345678+1=", "12")]
    alone = [measure(model, lesson([exercise], tokenizer)).sampled for exercise in exercises]

    assert measure(model, lesson(exercises, tokenizer)).sampled == pytest.approx(sum(alone) / 2, rel=1e-4)


@pytest.mark.parametrize("example", SUBJECTS)
def test_no_example_task_that_is_held_out_was_in_the_warm_start(example: str) -> None:
    assert all(is_reserved(prompt) for prompt, _ in held_out(example))


@pytest.mark.parametrize("reserved", [True, False])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_drawn_problems_are_reserved_or_not_as_asked_for(subject: Subject, reserved: bool) -> None:
    drawn = draw(subject, 20, reserved=reserved, random_=random.Random(0))

    assert [is_reserved(exercise.prompt) for exercise in drawn] == [reserved] * 20


def test_it_is_small_and_its_context_is_the_documented_one(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded

    assert 100_000 <= model.num_parameters() <= 250_000
    assert model.config.max_position_embeddings == tokenizer.model_max_length == BUNDLED_CONTEXT["tiny"]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_conversation_goes_through_the_chat_template_one_token_a_byte(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1="}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]

    assert tokenizer.decode(ids) == "<|system|>Add.<|end|><|user|>1+1=<|end|><|assistant|>"
    assert len(ids) == 5 + len("Add.1+1=")
