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
from hud_orchestrator.local.tool_conventions import convention_of
from hud_orchestrator.local.tool_fallback import without_template_support
from hud_orchestrator.local.tools import Tool

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
        self.convention, self._renders_tools = convention_of(_template(tokenizer))
        """How the model writes tool calls."""
        self._silent = _special_ids(tokenizer, except_=self.convention.markers)

    @property
    def eos_id(self) -> int | None:
        """The id that ends a turn, if the tokenizer names one."""
        eos = self._tokenizer.eos_token_id
        return eos if isinstance(eos, int) else None

    def render(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[Tool] = (), *, opening: str = ""
    ) -> tuple[int, ...]:
        """The prompt that the chat template makes of a conversation, up to where the model speaks.

        Args:
            messages: with contents as strings.
            tools: what the model may call.
            opening: what the model is made to begin with.

        Raises:
            Refused: the template cannot render it, or renders nothing.
        """
        # Not sorted: the order of a tool's parameters may be part of the prompt.
        key = json.dumps([messages, tools, opening])
        with self._one_at_a_time:
            ids = self._prompts.get(key)
            if ids is None:
                ids = self._prompts[key] = self.encode(self.rendered(messages, tools) + opening)
                if len(self._prompts) > REMEMBERED_PROMPTS:
                    self._prompts.popitem(last=False)
            else:
                self._prompts.move_to_end(key)
        if not ids:
            raise Refused(400, "messages: the chat template renders them to an empty prompt")
        return ids

    def rendered(self, messages: Sequence[dict[str, Any]], tools: Sequence[Tool] = ()) -> str:
        """The prompt as text.

        Raises:
            Refused: the template cannot render it.
        """
        if not self._tokenizer.chat_template:
            raise Refused(400, "this model's tokenizer has no chat template, so it cannot take messages")
        if not self._renders_tools:
            messages, tools = without_template_support(messages, tools), ()
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tools=list(tools) or None, add_generation_prompt=True, tokenize=False
                )
            )
        except Exception as error:
            # Templates are programs of their authors, and raise whatever they like.
            raise Refused(400, f"messages: the chat template refuses them: {error}") from error

    def encode(self, text: str) -> tuple[int, ...]:
        """The token ids of a piece of a prompt; special tokens are recognised."""
        with self._one_at_a_time:
            return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def text(self, ids: Sequence[int], *, with_markers: bool = False) -> str:
        """The text of *ids* without special tokens, but with those that mark tool calls if wished."""
        kept = [one for one in ids if one not in self._silent] if with_markers else list(ids)
        with self._one_at_a_time:
            return str(self._tokenizer.decode(kept, skip_special_tokens=not with_markers))

    def token(self, token_id: int) -> str:
        """The text of one token on its own; a part of a character shows as U+FFFD."""
        text = self._texts.get(token_id)
        if text is None:
            with self._one_at_a_time:
                text = self._texts[token_id] = str(self._tokenizer.decode([token_id]))
        return text


def load_vocabulary(directory: Path) -> Vocabulary:
    """The tokenizer of a model directory."""
    return Vocabulary(AutoTokenizer.from_pretrained(str(directory), local_files_only=True))


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that is used with tools; an empty one when there is none at all."""
    if not tokenizer.chat_template:
        return ""
    return str(tokenizer.get_chat_template(tools=[]))


def _special_ids(tokenizer: PreTrainedTokenizerBase, *, except_: Sequence[str]) -> frozenset[int]:
    """What the text of a reply leaves out."""
    added = tokenizer.added_tokens_decoder.items()
    ids = {*tokenizer.all_special_ids, *(one for one, token in added if token.special)}
    return frozenset(one for one in ids if tokenizer.convert_ids_to_tokens(one) not in except_)
