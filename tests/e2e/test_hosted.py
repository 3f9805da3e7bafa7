"""A run whose own service hosts its rollouts; tests/hosting has the others."""

from __future__ import annotations

from tests.e2e.conftest import Runner


def test_the_service_of_a_run_hosts_its_rollouts_too(local_run: Runner) -> None:
    local_run.write(runtime={"placement": "hosted", "poll_s": 0.2}, run={"steps": 1})

    done = local_run.run(timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert local_run.query("SELECT DISTINCT remote FROM rollouts") == [(1,)]
    assert local_run.query("SELECT count(*) FROM steps WHERE state = 'applied'") == [(1,)]
