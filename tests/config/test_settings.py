"""The key and the addresses come from the environment, and the key is never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.settings import Settings, setting_origins


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, an empty working directory and no HUD variable."""
    for name in [name for name in os.environ if name.upper().startswith("HUD_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home" / ".hud").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def refusal() -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    return str(caught.value).split("\n")


def test_without_anything_set_the_addresses_are_huds_and_there_is_no_key() -> None:
    settings = Settings.load()

    assert settings.api_key is None
    assert settings.rl_url == "https://rl.hud.ai"
    assert settings.api_url == "https://api.hud.ai"
    assert settings.gateway_url == "https://inference.hud.ai"
    assert settings.telemetry_url == "https://telemetry.hud.ai/v3/api"
    assert settings.runtime_url == "https://mcp.hud.ai"
    assert set(setting_origins().values()) == {"default"}


def test_the_nearest_place_that_has_a_value_holds(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HUD_RL_URL", "HUD_API_URL", "HUD_GATEWAY_URL", "HUD_TELEMETRY_URL")
    (places / "home/.hud/.env").write_text("".join(f"{name}=http://home\n" for name in names[:4]))
    (places / "work/.env").write_text("".join(f"{name}=http://work\n" for name in names[:3]) + "OTHER=1\n")
    for name in names[:2]:
        monkeypatch.setenv(name, "http://process")

    settings = Settings(rl_url="http://argument")

    assert settings.rl_url == "http://argument"
    assert settings.api_url == "http://process"
    assert settings.gateway_url == "http://work"
    assert settings.telemetry_url == "http://home"
    assert setting_origins() == {
        "HUD_API_KEY": "default",
        "HUD_RL_URL": "process environment",
        "HUD_API_URL": "process environment",
        "HUD_GATEWAY_URL": ".env",
        "HUD_TELEMETRY_URL": "~/.hud/.env",
        "HUD_RUNTIME_URL": "default",
        "HUD_TELEMETRY_ENABLED": "default",
    }


def test_slashes_at_the_end_of_an_address_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUD_RL_URL", " http://127.0.0.1:8000/v1// ")

    assert Settings.load().rl_url == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("rl.hud.ai", "is not an address"),
        ("ftp://rl.hud.ai", "is not an address"),
        ("http://", "is not an address"),
        ("http://a:99999", "is not an address"),
        ("http://a b", "is not an address"),
        ("http://[::1", "is not an address"),
        ("https://me:pass@rl.hud.ai", "holds a user name or a password"),
        ("https://rl.hud.ai/?key=1", "has a ? or # part"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, value: str, complaint: str
) -> None:
    monkeypatch.setenv("HUD_RL_URL", value)

    (line,) = refusal()

    assert line.startswith(f"HUD_RL_URL (process environment): {complaint}")
    assert "pass" not in line.replace("a password", "")


def test_every_wrong_variable_has_its_line_and_its_place(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "work/.env").write_text("HUD_API_URL=\n")
    monkeypatch.setenv("HUD_GATEWAY_URL", "nowhere")

    assert [line.split(":")[0] for line in refusal()] == [
        "HUD_API_URL (.env)",
        "HUD_GATEWAY_URL (process environment)",
    ]


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUD_API_KEY", " ")

    assert Settings.load().api_key is None


def test_the_key_is_read_without_the_line_break_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUD_API_KEY", "secret-value\n")
    key = Settings.load().api_key

    assert key is not None
    assert key.get_secret_value() == "secret-value"


def test_the_key_is_in_no_text_about_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUD_API_KEY", "secret-value")
    settings = Settings.load()

    assert (
        "secret-value" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )


@pytest.mark.parametrize("name", ["HUD_API_KEY", "HUD_RL_URL"])
def test_a_wrong_key_or_a_key_in_the_wrong_variable_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "secret value")

    assert "secret" not in refusal()[0]
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_named(places: Path) -> None:
    (places / "work/.env").write_bytes(b"HUD_API_KEY=caf\xe9\n")

    assert refusal() == [".env: is not UTF-8; save it as UTF-8"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(places: Path) -> None:
    (places / "work/.env").write_text("HUD_API_KEY=a\n")
    (places / "work/.env").chmod(0)

    assert refusal() == [".env: cannot be read: Permission denied; mend its permissions"]


def test_a_virtual_environment_called_dot_env_is_no_settings_file(places: Path) -> None:
    (places / "work/.env").mkdir()

    assert Settings.load().api_key is None
