"""Tell people and programs where the service is, without telling the log its key."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from hud_orchestrator.errors import StateUnwritable


def service_key() -> tuple[SecretStr, bool]:
    """The key to demand, and whether it was made up now."""
    given = os.environ.get("HUD_API_KEY", "").strip()
    return (SecretStr(given), False) if given else (SecretStr(secrets.token_urlsafe(24)), True)


def announce(url: str, key: SecretStr, *, made: bool, env_file: Path | None) -> None:
    """Write the environment file, readable by its owner only, and say where the service listens."""
    if env_file is not None:
        write_environment(env_file, url, key)
        print(f"listening on {url}; addresses and key are in {env_file}", flush=True)
    elif made:
        print(
            f"listening on {url} with a new key; use --env-file FILE to have it written for clients",
            flush=True,
        )
    else:
        print(f"listening on {url} with the key from HUD_API_KEY", flush=True)


def write_environment(path: Path, url: str, key: SecretStr) -> None:
    """Replace *path* by lines that a shell, Docker and pydantic-settings read.

    Raises:
        StateUnwritable: it cannot be written.
    """
    lines = {
        "HUD_API_KEY": key.get_secret_value(),
        "HUD_API_URL": url,
        "HUD_RL_URL": url,
        "HUD_GATEWAY_URL": url,
        "HUD_TELEMETRY_URL": f"{url}/v3/api",
        "HUD_RUNTIME_URL": url,
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    temporary = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise StateUnwritable(f"{path}: cannot be written: {error.strerror}") from error
