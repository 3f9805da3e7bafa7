"""Models that say what a test wants them to: after each token they know one next token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hud_orchestrator.local.bases.bytes_tokenizer import bytes_tokenizer
from tests.local.local_world import World, running

SPECIAL = ["<end>", "<system>", "<user>", "<model>", "<tool>"]
PRINTABLE = ["\n", *map(chr, range(32, 127))]
PLAIN = (
    "{% for m in messages %}<{{ 'model' if m.role == 'assistant' else m.role }}>{{ m.content }}<end>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
CONTEXT = 2048


def pieces_tokenizer(pieces: Sequence[str], template: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each printable character and for each of *pieces*."""
    tokens = list(dict.fromkeys([*SPECIAL, *PRINTABLE, *pieces]))
    tokenizer = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="?")
    )
    longest = "|".join(map(re.escape, sorted(pieces, key=len, reverse=True)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{longest}|[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        extra_special_tokens=SPECIAL[1:],
        unk_token="?",
        chat_template=template,
    )


def save_scripted(directory: Path, tokenizer: PreTrainedTokenizerFast, script: Sequence[int]) -> Path:
    """A model that goes from each id of *script* to the next; from the rest, to the last."""
    assert len(set(script)) == len(script), "a token can have only one next token"
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # The layer adds nothing, so what comes out tells the latest token, and no more.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        model.lm_head.weight.zero_()
        model.lm_head.weight[script[-1]] = 5
        for current, following in pairwise(script):
            model.lm_head.weight[script[-1], current] = 0
            model.lm_head.weight[following, current] = 5
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def says(directory: Path, pieces: Sequence[str], *, template: str = PLAIN, after: str = "<model>") -> Path:
    """A model that says *pieces* after the token *after*, then ends its turn."""
    tokenizer = pieces_tokenizer([piece for piece in [after, *pieces] if piece not in SPECIAL], template)
    ids = tokenizer.convert_tokens_to_ids([after, *pieces, "<end>"])
    return save_scripted(directory, tokenizer, ids)


def says_bytes(directory: Path, text: str) -> Path:
    """The same with the tokenizer of the tiny base; no byte of *text* comes twice."""
    tokenizer = bytes_tokenizer(context=CONTEXT)
    return save_scripted(directory, tokenizer, tokenizer.encode(f"<|assistant|>{text}<|end|>"))


@asynccontextmanager
async def serving(directory: Path, model: Path) -> AsyncIterator[World]:
    """A service that knows *model*."""
    async with running(directory / "state", model) as world:
        yield world


def shown(world: World, ids: Sequence[int]) -> str:
    """The text of token ids, special tokens included."""
    assert world.service
    (engine,) = world.service.pool.loaded()
    return "".join(engine.model.vocabulary.token(one) for one in ids)
