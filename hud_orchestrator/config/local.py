"""The section about the embedded service, and the models that need no download."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import HomePath, Section

BUNDLED_CONTEXT = {"tiny": 2048, "smollm2-135m": 8192}
"""Base models that come with the project, and their context lengths in tokens."""


class LoraSection(Section):
    """The low-rank adapter that is trained in ``lora`` mode; the base stays frozen."""

    rank: int = Field(default=8, ge=1)
    """Rank of the adapter's matrices."""

    alpha: float = Field(default=16, gt=0)
    """The adapter's output is scaled by ``alpha / rank``."""

    targets: list[str] = Field(default_factory=lambda: ["q_proj", "v_proj", "o_proj"], min_length=1)
    """Names of the linear layers that get an adapter."""


class KeepSection(Section):
    """Which checkpoints can still be gone back to, forked and sampled.

    The others lose their tensors when a newer one is written, and stay in the list without a path.
    Whatever is set here, the head and the tip of every branch are kept, and while a run trains the best
    checkpoint by evaluation and those that its guards may go back to. A kept checkpoint takes three
    times the space of what is trained: its weights and Adam's two moments.
    """

    last: int = Field(default=20, ge=1)
    """The newest checkpoints, by when they were made."""

    every: int | None = Field(default=None, ge=1)
    """Every checkpoint whose step is a multiple of this. Left out: none besides the others."""

    best: bool = True
    """The checkpoint with the highest mean reward, the newest of equal ones."""


class LocalSection(Section):
    """The embedded training service. Ignored when ``service`` is ``hud``."""

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:[0-9]+)?|mps)$")
    """A torch device: ``cpu``, ``cuda``, ``cuda:1`` ..."""

    threads: int = Field(default=1, ge=1)
    """Threads that torch computes with on the CPU; leave a core to the daemon."""

    parameters: Literal["auto", "full", "lora"] = "auto"
    """What is trained: every parameter, or an adapter. ``auto``: every parameter up to five million,
    an adapter above."""

    lora: LoraSection = LoraSection()

    keep: KeepSection = KeepSection()

    max_batch: int = Field(default=64, ge=1)
    """Sequences that are sampled together at most."""

    max_queue: int = Field(default=4096, ge=1)
    """Requests that may wait for a place; more are answered 503 with ``Retry-After``."""

    tokens_per_microbatch: int = Field(default=8192, ge=1)
    """Padded tokens in one forward and backward pass; bounds memory, does not change the gradient."""

    warm_start_seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the supervised warm start of ``tiny``."""

    cache_dir: HomePath | None = None
    """Where prepared base models are kept. Left out: ``tiny`` in the service's state directory, others
    in ``$XDG_CACHE_HOME/hud_orchestrator``."""
