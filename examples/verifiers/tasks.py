"""An environment of the ``verifiers`` library as a taskset: the module beside this file, or one that is installed."""

from __future__ import annotations

from hud_orchestrator.adapters.verifiers import taskset

env, train, heldout = taskset("sums", size=500, heldout=96)
