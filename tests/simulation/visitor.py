"""Somebody with a notebook, who takes no lease and uses a run's model while the run is down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulation.clock import Clock
from tests.simulation.service import Node, SimulatedService, Slug

TRACE = "a-visitors"

DOES = (
    ("forward-backward",),
    ("forward-backward", "optim-step"),
    ("forward-backward", "optim-step"),
    ("optim-step",),
    ("head",),
)


@dataclass(slots=True, kw_only=True)
class Visitor:
    """Comes once, at a moment when no lease is held."""

    rng: Random
    clock: Clock
    service: SimulatedService
    tell: Callable[[str], None]
    came: bool = False
    """Whether a call of a visit has succeeded."""
    seen: bool = False
    """Whether a trainer can tell that somebody was here: a service with leases tells of refused calls too."""
    made: Node | None = None
    """What the visit has made."""

    def come(self) -> None:
        """Do something to one of the forks, if there is one, as far as the service lets somebody."""
        slugs = [slug for slug in self.service.slugs.values() if not slug.fence.held(self.clock.now)]
        if self.came or not slugs:
            return
        slug = slugs[-1]
        for call in self.rng.choice(DOES):
            status = self._set_head(slug) if call == "head" else self._train(slug, call)
            self.came = self.came or status == 200
            self.tell(f"a visitor: {call} {status}")
            if call == "optim-step" and status == 200:
                self.made = slug.nodes[-1]

    def _train(self, slug: Slug, call: str) -> int:
        body = {"inputs": [{"trace_id": TRACE}], "learning_rate": 1e-3}
        return self._ask("POST", f"/v1/models/{slug.id}/train/{call}", body)

    def _set_head(self, slug: Slug) -> int:
        if not slug.nodes:
            return 404
        body = {"checkpoint_id": self.rng.choice(slug.nodes).id}
        return self._ask("PUT", f"/v2/models/{slug.id}/head", body)

    def _ask(self, method: str, path: str, body: object) -> int:
        status = self.service.handle(method, path, body, key=None, token=None, now=self.clock.now).status
        self.seen = self.seen or status == 200 or self.service.leases
        return status
