"""Author an environment in ten lines: an async generator yields a prompt, gets an answer, yields a grade.

    env = Environment("arithmetic")

    @env.template()
    async def add(a: int, b: int):
        answer = yield f"{a}+{b}="
        yield 1.0 if answer == str(a + b) else 0.0

Calling the decorated name, ``add(a=2, b=3)``, makes a task row, and ``.with_(columns={"digits": 1})``
says more about it. A yielded string or list of messages is a prompt; a number, a dict with ``score``
or an :class:`EvaluationResult` is the grade.
A template may yield further prompts after the first: each is one more turn. The answer is ``None``
when the agent was cut short before it gave one: a template that grades what was done so far breaks
out of its turns and yields its grade.

Tools are functions that the agent may call between its turns, registered with ``@env.tool()``. What
they share with the template of the same episode lies in ``env.state``, which every episode has its own of::

    @env.tool()
    async def move(direction: Literal["left", "right"]) -> str:
        "Step aside."
        return env.state.board.move(direction)

This module imports the standard library only: it is what an environment process starts with.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from hud_orchestrator.environments.parameters import parameters_of

TemplateFunction = Callable[..., AsyncGenerator[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubScore:
    """One named part of a grade, ``value`` in [0, 1]."""

    name: str
    value: float
    weight: float = 1.0
    info: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """A whole grade: the reward and everything a person may want to know about it."""

    reward: float = 0.0
    done: bool = True
    content: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    isError: bool = False
    subscores: list[SubScore] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task: a template of an environment, with its arguments."""

    env: str
    id: str
    args: dict[str, Any] = field(default_factory=dict)
    slug: str = ""
    """Its name among the others of its taskset; left out: the id, and a few digits of the arguments."""
    columns: dict[str, Any] | None = None
    """Facets by which tasks are chosen and results are shown, such as ``{"difficulty": "easy"}``."""
    agent_config: dict[str, Any] | None = None
    """``timeout_seconds`` is how long the agent has."""
    runtime_config: dict[str, Any] | None = None
    """What the environment asks of the machine that it runs on."""
    verifier: TaskRow | None = None
    """The task whose grade decides, in place of this one's own."""

    def __post_init__(self) -> None:
        if not self.slug:
            object.__setattr__(self, "slug", default_slug(self.id, self.args))

    def with_(self, **changes: Any) -> TaskRow:
        """The same task with other fields: ``add(a=1, b=2).with_(slug="easy", columns={"digits": 1})``.

        Raises:
            TypeError: a row has no such field.
        """
        if "args" in changes and "slug" not in changes and self.slug == default_slug(self.id, self.args):
            changes["slug"] = ""
        return replace(self, **changes)


def default_slug(template: str, args: dict[str, Any]) -> str:
    """The template's id, followed by eight hex digits of its arguments when it has any."""
    if not args:
        return template
    text = json.dumps(args, sort_keys=True, default=str)
    return f"{template}-{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Template:
    """A registered template; calling it makes a task row."""

    env: str
    id: str
    description: str
    function: TemplateFunction

    def __call__(self, **args: Any) -> TaskRow:
        """Make the row for these arguments; a wrong or missing one is a ``TypeError`` here and now."""
        inspect.signature(self.function).bind(**args)
        return TaskRow(env=self.env, id=self.id, args=args)


@dataclass(frozen=True, slots=True)
class Tool:
    """A registered tool."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON schema of its arguments."""
    function: Callable[..., Any]


EPISODE: ContextVar[SimpleNamespace] = ContextVar("episode")
"""The state of the episode whose code is running."""


class Environment:
    """A named collection of templates and tools."""

    def __init__(self, name: str, *, version: str = "0") -> None:
        self.name = name
        self.version = version
        self.templates: dict[str, Template] = {}
        self.tools: dict[str, Tool] = {}

    @property
    def state(self) -> SimpleNamespace:
        """What the template and the tools of one episode share; empty when it begins.

        Raises:
            RuntimeError: outside an episode.
        """
        try:
            return EPISODE.get()
        except LookupError:
            raise RuntimeError("env.state exists inside an episode only: in a template or a tool") from None

    def tool(
        self, name: str | None = None, description: str = ""
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function that the agent may call, by default under its own name.

        Its annotations say what it takes; what it returns, or raises, the agent reads.

        Raises:
            ValueError: the name is taken.
            TypeError: an annotation is none that JSON can say.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            called = name or function.__name__
            if called in self.tools:
                raise ValueError(f"environment {self.name!r} has a tool {called!r} already")
            described = description or inspect.getdoc(function) or ""
            self.tools[called] = Tool(called, described, parameters_of(function), function)
            return function

        return register

    def template(
        self,
        id: str | None = None,  # noqa: A002  (the SDK's name for it)
        description: str = "",
    ) -> Callable[[TemplateFunction], Template]:
        """Register an async generator function under *id*, by default its own name.

        Raises:
            TypeError: the function is not an async generator function.
            ValueError: the id is taken.
        """

        def register(function: TemplateFunction) -> Template:
            if not inspect.isasyncgenfunction(function):
                raise TypeError(f"template {function!r} is not an async generator: use async def and yield")
            name = id or function.__name__
            if name in self.templates:
                raise ValueError(f"environment {self.name!r} has a template {name!r} already")
            described = description or inspect.getdoc(function) or ""
            self.templates[name] = Template(self.name, name, described, function)
            return self.templates[name]

        return register
