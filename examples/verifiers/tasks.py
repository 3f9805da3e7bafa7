"""An environment of the ``verifiers`` library as a taskset: a module beside this file, or one installed."""

from __future__ import annotations

from hud_orchestrator.adapters.verifiers import taskset

env, train, heldout = taskset("sums", size=500, heldout=96)
