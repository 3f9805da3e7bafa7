"""Text to token ids and back, through a model's own tokenizer and chat template."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hud_orchestrator.local.replies import Refused

REMEMBERED_PROMPTS = 1024
"""Rendered conversations that are kept: the members of a group all send the same one."""


class Vocabulary:
    """A tokenizer that the event loop and an engine's thread may share."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # A fast tokenizer refuses a second borrower ("Already borrowed") instead of waiting for it.
        self._one_at_a_time = threading.RLock()
        self._prompts: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._texts: dict[int, str] = {}

    @property
    def eos_id(self) -> int | None:
        """The id that ends a turn, if the tokenizer names one."""
        eos = self._tokenizer.eos_token_id
        return eos if isinstance(eos, int) else None

    def render(self, messages: Sequence[dict[str, Any]]) -> tuple[int, ...]:
        """The prompt that the chat template makes of a conversation, up to where the model speaks.

        Raises:
            Refused: the template cannot render it, or renders nothing.
        """
        key = json.dumps(messages, sort_keys=True)
        with self._one_at_a_time:
            ids = self._prompts.get(key)
            if ids is None:
                ids = self._prompts[key] = self._apply_template(messages)
                if len(self._prompts) > REMEMBERED_PROMPTS:
                    self._prompts.popitem(last=False)
            else:
                self._prompts.move_to_end(key)
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """The text of *ids*, special tokens left out."""
        with self._one_at_a_time:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str:
        """The text of one token on its own; a part of a character shows as U+FFFD."""
        text = self._texts.get(token_id)
        if text is None:
            with self._one_at_a_time:
                text = self._texts[token_id] = str(self._tokenizer.decode([token_id]))
        return text

    def _apply_template(self, messages: Sequence[dict[str, Any]]) -> tuple[int, ...]:
        if not self._tokenizer.chat_template:
            raise Refused(400, "this model's tokenizer has no chat template, so it cannot take messages")
        try:
            rendered = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False
            )
        except Exception as error:
            # Templates are programs of their authors, and raise whatever they like.
            raise Refused(400, f"messages: the chat template refuses them: {error}") from error
        ids = self._tokenizer.encode(str(rendered), add_special_tokens=False)
        if not ids:
            raise Refused(400, "messages: the chat template renders them to an empty prompt")
        return tuple(ids)


def load_vocabulary(directory: Path) -> Vocabulary:
    """The tokenizer of a model directory."""
    return Vocabulary(AutoTokenizer.from_pretrained(str(directory), local_files_only=True))
