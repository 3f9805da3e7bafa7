"""What a template yields, as the frames that travel: prompts and grades. Standard library only."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any


class NotAFrame(Exception):
    """A template yielded something that is neither a prompt nor a grade."""


def is_grade(value: object) -> bool:
    """Whether *value* grades: a number, a dict with ``score``, or an object with a numeric ``reward``."""
    if isinstance(value, dict):
        return "score" in value
    return isinstance(value, bool | int | float) or isinstance(getattr(value, "reward", None), int | float)


def grade_frame(value: object) -> dict[str, Any]:
    """The grade as a frame: ``score`` and whatever else the environment says.

    Raises:
        NotAFrame: *value* is no grade, or its score is not a finite number.
    """
    if isinstance(value, bool | int | float):
        frame: dict[str, Any] = {"score": float(value)}
    elif isinstance(value, dict):
        frame = dict(value)
    elif is_dataclass(value) and not isinstance(value, type) and hasattr(value, "reward"):
        frame = asdict(value)
        frame["score"] = frame.pop("reward")
    elif isinstance(getattr(value, "reward", None), int | float):
        frame = {"score": float(value.reward)}  # type: ignore[attr-defined]
    else:
        raise NotAFrame(
            f"a grade is a number, a dict with score or an EvaluationResult, not {type(value).__name__}"
        )
    score = frame.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise NotAFrame(f"a score is a finite number, not {score!r}")
    return frame


def prompt_frame(value: object) -> dict[str, Any]:
    """The prompt as a frame; a dict that has a ``prompt`` passes whole.

    Raises:
        NotAFrame: the prompt is neither text, nor a list of messages, nor ``None``.
    """
    frame = dict(value) if isinstance(value, dict) and "prompt" in value else {"prompt": value}
    prompt = frame["prompt"]
    if prompt is None or isinstance(prompt, str):
        return frame
    if isinstance(prompt, list) and all(
        isinstance(m, dict) and {"role", "content"} <= m.keys() for m in prompt
    ):
        return frame
    raise NotAFrame(f"a prompt is a string, a list of messages or None, not {type(prompt).__name__}")
