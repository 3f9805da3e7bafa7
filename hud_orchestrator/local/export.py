"""Write a fork's weights as a directory that transformers or PEFT loads, without this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hud_orchestrator.config.local import LocalSection, LoraSection
from hud_orchestrator.errors import NotFound, StateUnwritable
from hud_orchestrator.local.atomic import new_directory
from hud_orchestrator.local.bases import default_cache_dir, prepare
from hud_orchestrator.local.stored import StoredModel
from hud_orchestrator.local.tensor_files import save_tensors
from hud_orchestrator.wire import Checkpoint

CARD = "hud_orchestrator.json"
"""Says where the weights come from."""


def export_model(
    stored: StoredModel, node: Checkpoint | None, directory: Path, *, base: Path, merge: bool
) -> bool:
    """Make *directory*, whole or not at all.

    Args:
        stored: the fork.
        node: which of its checkpoints; ``None``: the weights before the first step.
        directory: absent or empty.
        base: the directory of the model that the fork was made from.
        merge: add an adapter to its base, and write the sum.

    Returns:
        Whether it is a whole model, rather than an adapter for *base*.

    Raises:
        NotFound: the weights are gone.
        StateUnwritable: the directory cannot be written.
    """
    lora = stored.record.lora
    whole = lora is None or merge
    try:
        tensors = load_file(stored.weights(node.id if node else None))
    except FileNotFoundError:
        raise NotFound(f"{stored.record.slug}: the weights have just been pruned; name a newer one") from None
    try:
        with new_directory(directory.absolute()) as new:
            if lora is None:
                _with_tensors(base, tensors).save_pretrained(str(new))
            elif merge:
                _merged(base, tensors, lora).save_pretrained(str(new))
            else:
                _save_adapter(tensors, lora, base, new)
            AutoTokenizer.from_pretrained(str(base), local_files_only=True).save_pretrained(new)
            card = _card(stored, node, base, kind="model" if whole else "adapter")
            (new / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
            (new / "README.md").write_text(_readme(card), encoding="utf-8")
            _share_alike(new)
    except OSError as error:
        raise StateUnwritable(f"{directory}: cannot be written: {error}; nothing was written") from error
    return whole


def base_directory(stored: StoredModel, local: LocalSection) -> Path:
    """The directory of the fork's base, prepared as a service with these settings does it."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    base = stored.record.base
    usual = stored.directory.parents[1] / "bases" if base == "tiny" else default_cache_dir()
    return prepare(base, cache_dir=local.cache_dir or usual, seed=local.warm_start_seed)


def _adapter_for_peft(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's tensors under the names that PEFT's files have: without the adapter's own name."""
    return {
        f"base_model.model.{name.replace('.default.', '.')}": tensor.contiguous()
        for name, tensor in tensors.items()
    }


def _load(base: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype, local_files_only=True)


def _with_tensors(base: Path, tensors: dict[str, Tensor]) -> Any:
    module = _load(base, torch.float32)
    unknown = module.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise NotFound(f"{base}: is another model than the one that was trained: it has no {unknown[0]}")
    return module


def _merged(base: Path, tensors: dict[str, Tensor], lora: LoraSection) -> Any:
    """The base as the service computes with it, plus the adapter. In fp32: bf16 would round it away."""
    module = _load(base, torch.bfloat16).float()
    weights = dict(module.named_parameters())
    with torch.no_grad():
        for name, down in tensors.items():
            layer, is_down, _ = name.partition(".lora_A.")
            if is_down:
                up = tensors[name.replace(".lora_A.", ".lora_B.")]
                weights[f"{layer}.weight"] += lora.alpha / lora.rank * (up @ down)
    return module


def _save_adapter(tensors: dict[str, Tensor], lora: LoraSection, base: Path, new: Path) -> None:
    from peft import LoraConfig

    LoraConfig(**_settings(lora, base), inference_mode=True).save_pretrained(str(new))
    save_tensors(new / "adapter_model.safetensors", _adapter_for_peft(tensors))


def _settings(lora: LoraSection, base: Path) -> dict[str, Any]:
    return {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.absolute()),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.targets),
    }


def _share_alike(directory: Path) -> None:
    """Let whoever may read the other files read the weights: safetensors writes for the owner alone."""
    mode = (directory / CARD).stat().st_mode
    for path in directory.glob("*.safetensors"):
        path.chmod(mode)


def _card(stored: StoredModel, node: Checkpoint | None, base: Path, *, kind: str) -> dict[str, Any]:
    record = stored.record
    return {
        "kind": kind,
        "slug": record.slug,
        "model_id": record.id,
        "base": record.base,
        "base_directory": str(base.absolute()),
        "checkpoint": node.model_dump(mode="json", exclude={"is_active", "checkpoint_name"})
        if node
        else None,
    }


def _readme(card: dict[str, Any]) -> str:
    node = card["checkpoint"]
    at = f"checkpoint {node['name']} ({node['id']})" if node else "the weights before the first step"
    if card["kind"] == "model":
        load = "model = AutoModelForCausalLM.from_pretrained(here)"
    else:
        load = (
            f"base = AutoModelForCausalLM.from_pretrained({card['base_directory']!r}, dtype='bfloat16')\n"
            "model = PeftModel.from_pretrained(base, here)"
        )
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer" + (
        "" if card["kind"] == "model" else "\nfrom peft import PeftModel"
    )
    return (
        f"# {card['slug']}\n\n"
        f"Trained by hud_orchestrator from `{card['base']}`; {at}. `{CARD}` has the numbers.\n\n"
        f'```python\n{imports}\n\nhere = "."  # this directory\n{load}\n'
        "tokenizer = AutoTokenizer.from_pretrained(here)\n```\n"
    )
