"""A container engine that speaks Docker's API, through the ``docker`` package. Every call blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from hud_orchestrator.environments.machine import Machine
from hud_orchestrator.errors import ConfigError, EnvironmentFailed

LABEL = "hud-orchestrator.run"

CALL_S = 60
"""For one answer of the engine, pulls aside: those take as long as they take."""

TOLD = 2000
"""Characters of a container's last words that an error repeats."""


class Engine:
    """The containers of one run on one engine."""

    def __init__(self, run: str) -> None:
        """Reach the engine that ``DOCKER_HOST`` and the like name.

        Args:
            run: the label of its containers; nobody else uses it meanwhile.

        Raises:
            ConfigError: the package is not installed, or no engine answers.
        """
        try:
            # By name: the package has no types, and need not be there.
            docker, requests = import_module("docker"), import_module("requests")
        except ImportError as error:
            raise ConfigError(
                "runtime.placement: docker needs the docker package; install it with: "
                "pip install 'hud-orchestrator[docker]'"
            ) from error
        self._errors = docker.errors
        self._no_answer = requests.RequestException
        self._gpus = docker.types.DeviceRequest
        self._run = run
        self._closed = False
        self._starting: set[str] = set()
        self._unwanted: set[str] = set()
        """Containers that are to be removed, and are still being made."""
        try:
            self._client = docker.from_env(timeout=CALL_S)
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise ConfigError(
                f"runtime.placement: docker: no engine answers ({error}); start one, or set DOCKER_HOST"
            ) from error

    def close(self) -> None:
        """Close its connections, or leave that to a thread that still starts what it will have to remove."""
        self._closed = True
        if not self._starting:
            self._client.close()

    def pull(self, image: str) -> None:
        """Get an image that is not there yet.

        Raises:
            EnvironmentFailed: it cannot be had.
        """
        with self._refused(f"image {image}"):
            try:
                self._client.images.get(image)
            except self._errors.ImageNotFound:
                self._client.images.pull(image)

    def start(
        self, name: str, image: str, machine: Machine, *, port: int, environ: Mapping[str, str]
    ) -> None:
        """Run *image*, its *port* published on a free one of loopback.

        Raises:
            EnvironmentFailed: it does not start.
        """
        self._starting.add(name)
        try:
            with self._refused(f"container of {image}"):
                container = self._client.containers.create(
                    image,
                    name=name,
                    labels={LABEL: self._run},
                    environment=dict(environ),
                    ports={f"{port}/tcp": ("127.0.0.1", None)},
                    **self._resources(machine),
                )
                container.start()
        finally:
            self._started(name)

    def published(self, name: str, port: int) -> int:
        """The port of loopback that leads to *port* of a container.

        Raises:
            EnvironmentFailed: it runs no longer; its last words are in the message.
            OSError: it has none yet.
        """
        with self._refused(f"container {name}"):
            container = self._client.containers.get(name)
            state = container.attrs["State"]
            if state["Status"] in ("exited", "dead"):
                words = container.logs(tail=20).decode("utf-8", "replace").strip()[-TOLD:]
                said = " ".join(words.split()) or "it printed nothing"
                raise EnvironmentFailed(f"the container ended with {state.get('ExitCode')}: {said}")
            found = container.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        if not found:
            raise OSError(f"port {port} is not published yet")
        return int(found[0]["HostPort"])

    def remove(self, name: str) -> None:
        """Kill and remove a container, volumes included; one that is not there is as good.

        Raises:
            EnvironmentFailed: the engine does not do it.
        """
        if name in self._starting:
            self._unwanted.add(name)
        self._remove(name)

    def _started(self, name: str) -> None:
        try:
            # Its episode may have been over before it was there, and then removing it found nothing.
            if name in self._unwanted:
                self._unwanted.discard(name)
                self._remove(name)
        finally:
            self._starting.discard(name)
            if self._closed and not self._starting:
                self._client.close()

    def _remove(self, name: str) -> None:
        with self._refused(f"container {name}"):
            try:
                self._client.containers.get(name).remove(force=True, v=True)
            except self._errors.NotFound:
                return

    def left(self) -> list[str]:
        """Ids of this run's containers.

        Raises:
            EnvironmentFailed: the engine does not tell.
        """
        with self._refused("containers"):
            wanted = {"label": f"{LABEL}={self._run}"}
            # Sparse: looking at each of them would trip over those that go away meanwhile.
            found = self._client.containers.list(all=True, sparse=True, filters=wanted)
            return [one.id for one in found]

    def _resources(self, machine: Machine) -> dict[str, Any]:
        wanted, found = machine.resources, dict[str, Any]()
        if wanted.cpu is not None:
            found["nano_cpus"] = round(wanted.cpu * 1e9)
        if wanted.memory_mb is not None:
            found["mem_limit"] = f"{wanted.memory_mb}m"
        if wanted.gpu is not None:
            if wanted.gpu.type is not None:
                raise EnvironmentFailed("placement docker cannot choose a gpu by type; leave it out")
            found["device_requests"] = [self._gpus(count=wanted.gpu.count, capabilities=[["gpu"]])]
        return found

    @contextmanager
    def _refused(self, what: str) -> Iterator[None]:
        """What the engine says no to, and an engine that does not answer."""
        try:
            yield
        except (self._errors.DockerException, self._no_answer) as error:
            reason = " ".join(str(getattr(error, "explanation", None) or error).split())
            raise EnvironmentFailed(f"{what}: {reason}") from error
