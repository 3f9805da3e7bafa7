"""The one thread that computes with a base model, and shares its time between sampling and training.

Sampling advances by decode steps, training by micro-batches: a job is a generator that yields after
each. While there is work of both kinds, whichever has had less time goes next, so a burst of
requests cannot starve a step, nor a long step the requests. The thread sleeps on a condition when
there is nothing to do. The event loop never computes; it gets futures.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from hud_orchestrator.local.completion import Completion
from hud_orchestrator.local.language_model import LanguageModel
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.sampler import Sampler

T = TypeVar("T")
Job = Generator[None, None, T]
"""Work in slices; what it returns is its result."""


class Engine:
    """A language model and the thread that owns it."""

    def __init__(self, model: LanguageModel, sampler: Sampler, *, threads: int) -> None:
        """Start the thread; torch computes with *threads* threads in it."""
        self.model = model
        self.sampler = sampler
        self._jobs: deque[tuple[Job[Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._sampled_s = 0.0
        self._trained_s = 0.0
        self._thread = threading.Thread(target=self._loop, args=(threads,), name="engine", daemon=True)
        self._thread.start()

    def sample(self, completion: Completion) -> None:
        """Begin to sample; ``completion.done`` tells the end.

        Raises:
            Refused: 503, the queue is full or the service is stopping.
        """
        with self._changed:
            self._refuse_when_closing()
            self.sampler.submit(completion)
            self._changed.notify()

    def withdraw(self, completion: Completion) -> None:
        """Stop sampling for a client that has gone away."""
        self.sampler.withdraw(completion)

    def run(self, job: Job[T]) -> Future[T]:
        """Run *job* between decode steps.

        Raises:
            Refused: 503, the service is stopping.
        """
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()
        with self._changed:
            self._refuse_when_closing()
            self._jobs.append((job, done))
            self._changed.notify()
        return done

    def close(self) -> None:
        """Take nothing new, and end what runs with 503: sequences at once, jobs before their next slice."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end after ``close``."""
        self._thread.join(timeout_s)

    def _loop(self, threads: int) -> None:
        # The count of OpenMP threads is a property of the thread that calls.
        torch.set_num_threads(threads)
        while self._wait_for_work():
            self._turn()
        self.sampler.fail_all(Refused(503, "the service is stopping"))
        for job, done in self._jobs:
            job.close()
            done.set_exception(Refused(503, "the service is stopping; nothing was changed"))

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._jobs or self.sampler.busy)
            return not self._closing

    def _turn(self) -> None:
        if self._jobs and not (self.sampler.busy and self._sampled_s < self._trained_s):
            self._trained_s += _timed(self._advance_job)
        else:
            self._sampled_s += _timed(self.sampler.step)
        if not (self._jobs and self.sampler.busy):
            # Time that nobody else wanted is not owed to anybody.
            self._sampled_s = self._trained_s = 0.0

    def _advance_job(self) -> None:
        job, done = self._jobs[0]
        try:
            next(job)
        except StopIteration as end:
            self._jobs.popleft()
            done.set_result(end.value)
        except Exception as error:
            # It belongs to whoever waits for the job; the engine goes on.
            self._jobs.popleft()
            done.set_exception(error)
        else:
            self._jobs.rotate(-1)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise Refused(503, "the service is stopping")


def _timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
