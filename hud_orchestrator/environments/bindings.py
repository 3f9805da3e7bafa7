"""What an environment says about itself when it is greeted: its manifest and its capabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hud_orchestrator.errors import EnvironmentFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A capability: something that an agent may use besides the control connection."""

    name: str
    protocol: str
    url: str
    """As the environment sees it; reached through a tunnel."""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The answer to ``hello``."""

    session_id: str
    env: str
    bindings: Sequence[Binding] = ()
    methods: frozenset[str] = frozenset()
    """Methods beyond HUD's protocol: servers of ours have ``tasks.turn`` and ``tools.call``."""


def as_manifest(answer: Mapping[str, Any]) -> Manifest:
    """Read the answer to ``hello``.

    Raises:
        EnvironmentFailed: it is not one.
    """
    env, bindings, methods = (answer.get(key) for key in ("env", "bindings", "methods"))
    session_id = answer.get("session_id")
    return Manifest(
        session_id=session_id if isinstance(session_id, str) else "",
        env=str(env.get("name", "")) if isinstance(env, Mapping) else "",
        bindings=tuple(_binding(one) for one in _list(bindings)),
        methods=frozenset(str(one) for one in _list(methods)),
    )


def refined(bindings: Sequence[Binding], started: object) -> tuple[Binding, ...]:
    """The bindings of one episode: the manifest's, refined by the start frame's.

    A refinement may replace ``url``; everything else it says joins the parameters.

    Raises:
        EnvironmentFailed: the start frame's are no mapping of names to objects.
    """
    if started is None:
        return tuple(bindings)
    if not isinstance(started, Mapping) or not all(isinstance(one, Mapping) for one in started.values()):
        raise EnvironmentFailed(f"tasks.start: bindings is {started!r:.200}, expected names and objects")
    return tuple(_refined(one, started.get(one.name, {})) for one in bindings)


def _refined(binding: Binding, more: Mapping[str, Any]) -> Binding:
    nested = more.get("params")
    flat = {key: value for key, value in more.items() if key not in ("name", "protocol", "url", "params")}
    params = {**binding.params, **flat, **(nested if isinstance(nested, Mapping) else {})}
    return replace(binding, url=str(more.get("url") or binding.url), params=params)


def _binding(found: Any) -> Binding:
    row = found if isinstance(found, Mapping) else {}
    name, protocol, url, params = (row.get(key) for key in ("name", "protocol", "url", "params"))
    if not isinstance(name, str) or not isinstance(protocol, str) or not isinstance(url, str):
        raise EnvironmentFailed(f"hello: {found!r:.200} is no capability: name, protocol and url are texts")
    return Binding(
        name=name, protocol=protocol, url=url, params=params if isinstance(params, Mapping) else {}
    )


def _list(found: object) -> Sequence[Any]:
    return found if isinstance(found, list) else ()
