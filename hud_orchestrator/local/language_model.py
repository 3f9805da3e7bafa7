"""One base model in memory, run with the trained parameters of any snapshot.

There is one ``nn.Module`` per base. It is run with other values put in the place of its trained
parameters, so many forks, their snapshots and their training copies share the frozen rest. That is
what ``torch.func.functional_call`` does too, but it looks up every place again in every call, which
was a fifth of a decode step; here the places are known, and a snapshot stays in them until another
one is wanted.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Cache

from hud_orchestrator.config.local import LocalSection, LoraSection
from hud_orchestrator.local.vocabulary import Vocabulary, load_vocabulary
from hud_orchestrator.local.weights import Tensors

FULL_UP_TO = 5_000_000
"""Parameters up to which ``auto`` trains all of them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which base, and which of its parameters are trained. Forks with equal recipes share a module."""

    base: str
    mode: Literal["full", "lora"]
    lora: LoraSection | None

    @property
    def key(self) -> str:
        """Equal for equal recipes."""
        return f"{self.base}|{self.mode}|{self.lora.model_dump_json() if self.lora else ''}"


class LanguageModel:
    """A causal language model whose attention is causal and cached per token (no recurrent layers)."""

    def __init__(
        self, module: nn.Module, vocabulary: Vocabulary, *, recipe: Recipe, context: int, device: str
    ) -> None:
        """Wrap *module*; its parameters that require a gradient are the ones that are trained."""
        self.recipe = recipe
        self.vocabulary = vocabulary
        self.context = context
        self.device = torch.device(device)
        self.trained: Tensors = {
            name: parameter.detach()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        """The module's own values of the trained parameters; of an adapter, only the shapes matter."""
        self._module = module
        self._slots = _slots(module)
        self._installed: Tensors = {}
        self._wanted: Tensor | None = None
        # transformers renamed it in 5.24, and warns whoever says the old name.
        known = inspect.signature(module.forward).parameters
        self._cache_key = "cache" if "cache" in known else "past_key_values"
        head = module.get_output_embeddings()  # type: ignore[operator]
        head.register_forward_pre_hook(self._keep_wanted)
        self.vocab_size = int(module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
        self.eos_ids = _eos_ids(module, vocabulary)

    def logits(
        self,
        tensors: Tensors,
        input_ids: Tensor,
        wanted: Tensor,
        *,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits at some positions, fp32. Not thread-safe: one engine thread calls it.

        Args:
            tensors: values of trained parameters; those left out keep the base's.
            input_ids: token ids. Shape [B, T].
            wanted: flat positions ``b * T + t`` whose logits are wanted. Shape [N].
            cache: keys and values of earlier tokens, which is extended.
            attention_mask: 1 on tokens, 0 on padding, the cache included. Shape [B, K]. ``None``:
                unpadded or right-padded rows, where causality alone keeps padding out of sight.
            position_ids: shape [B, T]. ``None``: counted from the cache's length.

        Returns:
            Shape [N, V].
        """
        self._wanted = wanted
        given = {"attention_mask": attention_mask, "position_ids": position_ids, self._cache_key: cache}
        arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._install(tensors)
        logits: Tensor = self._module(input_ids, use_cache=cache is not None, **arguments).logits
        return logits.float()

    def _install(self, tensors: Tensors) -> None:
        # Identity is enough: snapshots are never written to.
        if tensors is not self._installed:
            for owner, key, name in self._slots:
                owner[key] = tensors[name] if name in tensors else self.trained[name]
            self._installed = tensors

    def _keep_wanted(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # index_select gives a contiguous tensor. A frozen head applied to a non-contiguous slice
        # would copy its whole weight once per row.
        assert self._wanted is not None
        hidden = inputs[0].flatten(0, -2).index_select(0, self._wanted)
        return (hidden.to(cast("Tensor", head.weight).dtype),)


def load_language_model(
    directory: Path, recipe: Recipe, *, context: int | None, device: str
) -> LanguageModel:
    """Load a base from *directory* and put adapters into it if the recipe asks for them.

    Raises:
        ValueError: ``lora.targets`` names no layer of this model.
        OSError: the directory holds no model that transformers loads.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    dtype = torch.float32 if recipe.mode == "full" else torch.bfloat16
    module = AutoModelForCausalLM.from_pretrained(str(directory), dtype=dtype, local_files_only=True)
    module.eval().to(device)  # type: ignore[no-untyped-call]
    if recipe.lora is not None:
        _insert_adapters(module, recipe.lora)
    limits = [int(module.config.max_position_embeddings), *([context] if context else [])]
    return LanguageModel(
        module, load_vocabulary(directory), recipe=recipe, context=min(limits), device=device
    )


def _insert_adapters(module: nn.Module, lora: LoraSection) -> None:
    """Freeze *module*, and give its target layers adapters that are trained instead."""
    # Imported here: it brings accelerate along, a second that a start without adapters need not take.
    from peft import LoraConfig, inject_adapter_in_model

    module.requires_grad_(False)
    _make_head_exact(module)
    alpha = cast("int", lora.alpha)
    inject_adapter_in_model(
        LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=list(lora.targets)), module
    )


def _make_head_exact(module: nn.Module) -> None:
    """Let the last layer compute in fp32, whatever the rest computes in.

    A logit of 20 in bf16 is right to 0.06 at best, so log-probabilities of the same token from a
    decode step and from a training pass would differ by as much. Found and mended the same way by
    MiniMax-M1, arXiv:2506.13585.
    """
    head = module.get_output_embeddings()  # type: ignore[operator]
    # A new parameter, so that embeddings tied to it keep theirs.
    head.weight = nn.Parameter(head.weight.detach().float(), requires_grad=False)
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach().float(), requires_grad=False)


def choose_recipe(base: str, directory: Path, local: LocalSection) -> Recipe:
    """What ``parameters`` means for this base: all of them, or an adapter."""
    mode = local.parameters
    if mode == "auto":
        mode = "full" if _count_parameters(directory) <= FULL_UP_TO else "lora"
    return Recipe(base=base, mode=mode, lora=local.lora if mode == "lora" else None)


def _slots(module: nn.Module) -> list[tuple[dict[str, Tensor | None], str, str]]:
    """Where each trained parameter sits, tied ones more than once: its owner's dict, key there, name."""
    names = {id(one): name for name, one in module.named_parameters() if one.requires_grad}
    return [
        (cast("dict[str, Tensor | None]", owner._parameters), key, names[id(parameter)])
        for owner in module.modules()
        for key, parameter in owner._parameters.items()
        if parameter is not None and id(parameter) in names
    ]


def _count_parameters(directory: Path) -> int:
    config = AutoConfig.from_pretrained(str(directory), local_files_only=True)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return sum(parameter.numel() for parameter in module.parameters())


def _eos_ids(module: nn.Module, vocabulary: Vocabulary) -> frozenset[int]:
    """Every id that ends a turn: what the generation config names, and the tokenizer's own."""
    named = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(one for one in [*ids, vocabulary.eos_id] if one is not None)
