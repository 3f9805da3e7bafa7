"""Tensors and optimizer states as safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from hud_orchestrator.local.weights import Tensors, TrainState


def save_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors to *path*; not durable until it is fsynced.

    Raises:
        OSError: the disk is full, for example. safetensors reports it as an error of its own.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path.name}: {error}") from error


def save_state(weights: Path, optimizer: Path, state: TrainState) -> None:
    """Write *state* to two files: what is sampled with, and what only a further step needs.

    Raises:
        OSError: as above.
    """
    save_tensors(weights, state.tensors)
    first = {f"first.{name}": tensor for name, tensor in state.first_moments.items()}
    second = {f"second.{name}": tensor for name, tensor in state.second_moments.items()}
    save_tensors(optimizer, first | second)


def load_state(weights: Path, optimizer: Path, step: int) -> TrainState:
    """What ``save_state`` wrote after *step* steps, on the CPU.

    Raises:
        FileNotFoundError: one of the files is gone.
    """
    tensors, moments = load_file(weights), load_file(optimizer)
    first, second = (
        {name.removeprefix(prefix): one for name, one in moments.items() if name.startswith(prefix)}
        for prefix in ("first.", "second.")
    )
    return TrainState(tensors=tensors, first_moments=first, second_moments=second, step=step)
