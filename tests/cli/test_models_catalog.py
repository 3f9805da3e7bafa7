"""``models list``, ``fork``, ``checkpoints`` and ``head`` against a service that runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hud_orchestrator.config.local import KeepSection
from tests.cli.models_world import Models


def test_the_list_is_sorted_and_says_what_can_be_trained_and_where_it_is_sampled(models: Models) -> None:
    slug = models.forked()

    said, quiet, listed = models("list"), models("list", "--quiet"), models("list", "--json").json()

    heading, *rows, gateway = said.out.splitlines()
    assert heading.split() == ["Name", "Model", "(API)", "ID", "Provider", "Agent", "Trainable"]
    assert gateway == f"gateway: {os.environ['HUD_GATEWAY_URL']}"
    names = [row.split()[0] for row in rows]
    assert names == sorted(names)
    assert names == quiet.out.split() == [model["model_name"] for model in listed]
    assert {row.split()[0]: len(row.split()) for row in rows if row.split()[0] in (slug, "tiny")} == {
        slug: 6,
        "tiny": 5,
    }


def test_an_environment_file_comes_before_the_environment(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{name}={os.environ[name]}\n" for name in ("HUD_API_KEY", "HUD_API_URL", "HUD_GATEWAY_URL")]
    (tmp_path / "local.env").write_text("".join(lines))
    monkeypatch.setenv("HUD_API_KEY", "another")
    monkeypatch.setenv("HUD_API_URL", "http://127.0.0.1:9")

    assert "tiny" in models("list", "--quiet", "--env-file", "local.env").out.split()


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be read"), ("A=1\n", "has no HUD_* value")])
def test_an_environment_file_that_says_nothing_is_refused(
    models: Models, tmp_path: Path, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "local.env").write_text(content)

    said = models("list", "--env-file", "local.env")

    assert (said.code, said.out) == (2, "")
    assert f"local.env: {reason}" in said.err


def test_a_name_that_is_taken_is_refused_or_taken_over_as_asked(models: Models) -> None:
    slug = models.forked()

    refused = models("fork", "tiny", "-n", slug, "--json")
    taken = models("fork", "tiny", "-n", slug, "--if-not-exists")

    assert refused.code == 1
    assert refused.json()["error"] == "conflict"
    assert "--if-not-exists" in refused.json()["suggestion"]
    assert taken.code == 0
    assert f"slug: {slug}" in taken.out


def test_an_unknown_model_is_answered_with_the_nearest_one(models: Models) -> None:
    said, as_json = models("fork", "tinny", "-n", "x"), models("checkpoints", "tinny", "--json")

    assert (said.code, said.out, said.err) == (2, "", "there is no model 'tinny'; did you mean tiny?\n")
    assert (as_json.code, as_json.err) == (2, "")
    assert as_json.json() == {
        "error": "not_found", "message": "there is no model 'tinny'", "suggestion": "did you mean tiny?"
    }  # fmt: skip


def test_only_branches_are_indented_and_the_head_is_marked(models: Models) -> None:
    slug = models.forked()
    first, second, third = (models.step(slug) for _ in range(3))
    assert models("head", slug, "--set", first[:8]).code == 0
    other = models.step(slug)

    drawn = [line[: line.index(one[:8])].rstrip() for line, one in zip(
        models("checkpoints", slug).out.splitlines()[1:], (first, second, third, other), strict=True
    )]  # fmt: skip
    quiet = models("checkpoints", slug, "--quiet").out.split()
    listed = models("checkpoints", slug, "--json").json()

    assert drawn == ["   step-000001", "   |- step-000002", "   |  step-000003", "*  step-000002"]
    assert quiet == [first, second, third, other] == [node["id"] for node in listed]
    assert [node["is_active"] for node in listed] == [False, False, False, True]


def test_what_the_service_has_pruned_says_so(models: Models) -> None:
    slug = models.forked()
    whole = [models.step(slug) for _ in range(KeepSection().last)]
    before = models("checkpoints", slug).out
    pruned, whole = whole[:2], [*whole[2:], models.step(slug), models.step(slug)]

    drawn = models("checkpoints", slug).out.splitlines()[1:]
    refused = models("head", slug, "--set", pruned[0])

    assert "pruned" not in before
    assert [line.endswith("  pruned") for line in drawn] == [True] * len(pruned) + [False] * len(whole)
    assert refused.code != 0
    assert "pruned" in refused.err


def test_the_head_is_shown_and_set_by_id_by_its_beginning_and_by_name(models: Models) -> None:
    slug = models.forked()
    before = models("head", slug)
    first, second = models.step(slug), models.step(slug)

    by_name = models("head", slug, "--set", "step-000001", "--json").json()
    by_prefix = models("head", slug, "--set", second[:4])
    by_id = models("head", slug, "--set", first)

    assert "no checkpoint yet" in before.out
    assert by_name["head"]["id"] == first
    assert ["id", second] in by_prefix.rows
    assert ["reward", "0.500"] in by_prefix.rows
    assert ["id", first] in by_id.rows


def test_a_checkpoint_that_is_not_one_is_refused_and_the_head_stays(models: Models) -> None:
    slug = models.forked()
    first, _ = models.step(slug), models.step(slug)
    models("head", slug, "--set", first)
    third = models.step(slug)
    same_name = [node["id"] for node in models("checkpoints", slug, "--json").json()[1:]]

    ambiguous = models("head", slug, "--set", "step-000002")
    short, unknown = models("head", slug, "--set", first[:3]), models("head", slug, "--set", "step-000009")

    assert (ambiguous.code, short.code, unknown.code) == (2, 2, 2)
    assert all(one in ambiguous.err for one in same_name)
    assert "did you mean step-00000" in unknown.err
    assert models("head", slug, "--json").json()["head"]["id"] == third


def test_a_fork_may_begin_at_any_checkpoint(models: Models) -> None:
    slug = models.forked()
    models.step(slug)
    at_first = models.greedy(slug, "7+8=", logprobs=True)
    models.step(slug, learning_rate=0.3)

    assert models("fork", slug, "-n", f"{slug}-b", "--checkpoint", "step-000001").code == 0
    assert models.greedy(f"{slug}-b", "7+8=") == at_first
    assert models.greedy(slug, "7+8=") != at_first


def test_the_exit_code_says_what_is_wrong_with_the_service(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUD_API_KEY", "another-key")
    refused = models("list", "--json")
    monkeypatch.setenv("HUD_API_KEY", "")
    without = models("list")
    monkeypatch.setenv("HUD_API_KEY", "another-key")
    monkeypatch.setenv("HUD_API_URL", "http://127.0.0.1:9")
    away = models("list", "--json")

    assert (refused.code, refused.json()["error"]) == (77, "permission_denied")
    assert (without.code, without.out) == (77, "")
    assert "--env-file" in without.err
    assert (away.code, away.json()["error"]) == (69, "unreachable")
