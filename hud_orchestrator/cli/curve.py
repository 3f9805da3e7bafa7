"""``hud-orchestrate curve``: what a run's rewards did, as bars in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hud_orchestrator.errors import ConfigError

WIDTH = 50
EIGHTHS = " ▏▎▍▌▋▊▉"


def curve(
    run: Annotated[Path, typer.Argument(help="A run's directory, or its name below runs/.", metavar="RUN")],
) -> None:
    """Draw the held-out reward of every evaluation and the training reward of every step."""
    from hud_orchestrator.cli.live import sparkline
    from hud_orchestrator.cli.rollouts.place import RUNS

    directory = run if run.exists() or not (RUNS / run).is_dir() else RUNS / run
    lines = _present(_metrics(directory / "metrics.jsonl"))
    evaluations = [(line["step"], line["reward"]) for line in lines if line["kind"] == "evaluation"]
    rewards = [line["reward_mean"] for line in lines if line["kind"] == "step"]
    if evaluations:
        print("held-out reward")
    for step, reward in evaluations:
        print(f"  after step {step:>4}  {reward:6.3f}  {bar(reward)}")
    if rewards:
        print(f"training reward of {len(rewards)} steps")
        print(f"  {rewards[0]:.3f} {sparkline(rewards, width=WIDTH)} {rewards[-1]:.3f}")


def bar(value: float) -> str:
    """*value*, from 0 to 1, as a bar of up to ``WIDTH`` characters; outside of that it is clipped."""
    eighths = round(min(max(value, 0.0), 1.0) * WIDTH * 8)
    whole, part = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[part] if part else "")


def _present(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what the run has gone back from."""
    kept: list[dict[str, Any]] = []
    for line in lines:
        # A kill may have cost the line about the rollback; then the step that comes again tells.
        last = {"rollback": line["step"], "step": line["step"] - 1}.get(line["kind"])
        if last is not None:
            kept = [one for one in kept if one["step"] <= last]
        kept.append(line)
    return kept


def _metrics(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name a run directory") from error
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        # A run that was killed may have left its last line in part.
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    if not found:
        raise ConfigError(f"{path}: has no metrics yet")
    return found
