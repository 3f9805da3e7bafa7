"""The key and the addresses of HUD's services, from the environment: what a run file never holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from hud_orchestrator.errors import ConfigError

PREFIX = "HUD_"


def _address(given: str) -> str:
    """Check an address. No message repeats it: a key set in its place would be in the message."""
    text = given.strip().rstrip("/")
    if not text:
        raise ValueError("is empty; set an address such as https://rl.hud.ai, or unset it for the default")
    try:
        parts = urlsplit(text)
        usable = (
            parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and text.isprintable()
        )
    except ValueError:
        usable = False
    if not usable or " " in text:
        raise ValueError("is not an address; it must look like https://host or http://host:port/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or a password; remove it, the key goes into HUD_API_KEY")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or # part, and paths are appended to it; remove that part")
    return text


def _key(given: SecretStr | None) -> SecretStr | None:
    """Take an empty key for none, and refuse what an HTTP header cannot carry."""
    text = given.get_secret_value().strip() if given else ""
    if not text:
        return None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("has a space, a line break or a character outside ASCII in it; copy the key again")
    return SecretStr(text)


Address = Annotated[str, AfterValidator(_address)]


class Settings(BaseSettings):
    """``HUD_API_KEY`` and the ``HUD_*_URL`` addresses.

    The first place that has a value holds: an argument, the process environment, ``.env`` in the
    working directory, ``~/.hud/.env``, the default.
    """

    # Input stays out of pydantic's messages: any of these variables may hold the key by accident.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    api_key: Annotated[SecretStr | None, AfterValidator(_key)] = None
    rl_url: Address = "https://rl.hud.ai"
    api_url: Address = "https://api.hud.ai"
    gateway_url: Address = "https://inference.hud.ai"
    telemetry_url: Address = "https://telemetry.hud.ai/v3/api"
    runtime_url: Address = "https://mcp.hud.ai"
    telemetry_enabled: bool = True

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (names are the library's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Look into two files rather than one, and into no directory of secrets."""
        return (init_settings, env_settings, *(source for _, source in _files(settings_cls)))

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the settings; what is *given*, by field name, comes before every other place.

        Raises:
            ConfigError: a value is wrong, or a file cannot be read; a line for each.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            origins, lines = setting_origins() | {variable(name): "argument" for name in given}, []
            for detail in error.errors(include_url=False, include_input=False):
                name = variable(str(detail["loc"][0]))
                lines.append(f"{name} ({origins[name]}): {detail['msg'].removeprefix('Value error, ')}")
            raise ConfigError("\n".join(lines)) from None


def variable(field: str) -> str:
    """Name the environment variable of a field: ``HUD_RL_URL`` for ``rl_url``."""
    return PREFIX + field.upper()


def setting_origins() -> dict[str, str]:
    """Say for every variable where its value comes from.

    Raises:
        ConfigError: a file cannot be read.
    """
    origins = dict.fromkeys(map(variable, Settings.model_fields), "default")
    for label, found in reversed([("process environment", _environment()), *_file_values()]):
        origins |= {name: label for name in origins if name in found}
    return origins


def redacted(text: str) -> str:
    """Blank the key out of *text*, whichever place it came from."""
    if not text:
        return text
    try:
        key = Settings().api_key
    except (ValidationError, ConfigError):
        key = SecretStr(os.environ.get(variable("api_key"), ""))
    secret = key.get_secret_value().strip() if key else ""
    # Something shorter is no key, and blanking it out would spoil ordinary words.
    return text.replace(secret, "**********") if len(secret) >= 8 else text


def _environment() -> set[str]:
    return {name.upper() for name in os.environ}


def _file_values() -> Iterator[tuple[str, set[str]]]:
    for label, source in _files(Settings):
        yield label, {name.upper() for name in source.env_vars}


def _files(settings: type[BaseSettings]) -> Iterator[tuple[str, DotEnvSettingsSource]]:
    for label in (".env", "~/.hud/.env"):
        path = Path(os.path.expanduser(label))  # noqa: PTH111  (without a home directory it leaves the text as it is)
        try:
            yield label, DotEnvSettingsSource(settings, env_file=path, env_file_encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{label}: is not UTF-8; save it as UTF-8") from None
        except OSError as error:
            raise ConfigError(f"{label}: cannot be read: {error.strerror}; mend its permissions") from None
