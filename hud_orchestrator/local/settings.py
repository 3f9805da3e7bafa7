"""What the embedded service is told when it starts: one JSON document, on its standard input."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.config.section import Section


class ServiceSettings(Section):
    """Where the service keeps its state, who may call it, and how it computes."""

    state_dir: Path
    """Directory of the forks and their checkpoints; made when it is missing. One service at a time."""

    state_wait_s: float = Field(default=0, ge=0)
    """Seconds to wait for another service to leave that directory."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless somebody decides otherwise: the key travels without TLS."""

    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 takes a free one, and the ready line says which."""

    api_key: SecretStr = Field(min_length=1)
    """The bearer token that every request has to carry."""

    bases: list[str] = Field(default_factory=list)
    """Base models besides the bundled ones: directories that transformers loads."""

    environments: list[Path] = Field(default_factory=list)
    """Files that define environments, and directories of such files: what hosted rollouts and leases run."""

    seed: int = Field(default=0, ge=0)
    """Seeds adapters and every completion whose request brings no seed of its own."""

    deterministic: bool = False
    """Sample one sequence at a time, in order of arrival, with deterministic kernels: the same
    requests in the same order give the same bits."""

    leases_outlive: bool = True
    """Whether a trainer that has a model on lease may still be there after the service has ended. Not where
    a daemon has brought the service along: the one ends with the other."""

    local: LocalSection = LocalSection()
    """The run file's section about this service."""
