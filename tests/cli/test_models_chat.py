"""``models chat``: one prompt, standard input, and turns at a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.models_world import Models

GREEDY = ("--temperature", "0", "--max-tokens", "12")
Answer = Callable[[dict[str, Any]], tuple[int, str, str]]


def test_an_answer_is_what_the_gateway_says_for_a_prompt_and_for_standard_input(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = models.greedy("tiny", "12+3=")["message"]["content"]

    asked = models("chat", "tiny", "12+3=", *GREEDY)
    monkeypatch.setattr(sys, "stdin", io.StringIO("12+3=\n"))
    piped = models("chat", "tiny", *GREEDY)
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    empty = models("chat", "tiny")

    assert (asked.code, asked.out) == (piped.code, piped.out) == (0, f"{expected}\n")
    assert empty.code == 2


def test_any_checkpoint_can_be_talked_to(models: Models) -> None:
    slug = models.forked()
    first, _ = models.step(slug), models.step(slug, learning_rate=0.3)
    at_first = models.greedy(slug, "7+8=", checkpoint=first)["message"]["content"]
    at_head = models.greedy(slug, "7+8=")["message"]["content"]

    assert at_first != at_head
    assert models("chat", slug, "7+8=", *GREEDY, "--checkpoint", first[:6]).out == f"{at_first}\n"
    assert models("chat", slug, "7+8=", *GREEDY).out == f"{at_head}\n"
    assert models("chat", slug, "7+8=", "--checkpoint", "step-000007").code == 2


def test_at_a_terminal_it_goes_on_in_turns_until_the_input_ends(models: Models, tmp_path: Path) -> None:
    expected = models.greedy("tiny", "12+3=")["message"]["content"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hud_orchestrator", "models", "chat", "tiny", *GREEDY],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
    ) as process:  # fmt: skip
        # An empty line, a question, a conversation that begins anew, and Ctrl-D.
        os.write(ours, b"\n12+3=\n/new\n12+3=\n\x04")
        said = process.communicate(timeout=60)[0].decode()
    os.close(ours)
    os.close(theirs)

    assert process.returncode == 0
    assert "Ctrl-D ends" in said
    assert said.count(f"you> {expected}\n") == 2


@contextmanager
def gateway(answer: Answer) -> Iterator[list[dict[str, Any]]]:
    """A managed service with one model; its chat answers as it is told. What it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/checkpoints"):
                self._say(200, "application/json", "[]")
            else:
                model = {
                    "id": "1",
                    "model_name": "team/far",
                    "provider": {"name": "hud"},
                    "is_trainable": True,
                }
                self._say(200, "application/json", json.dumps({"items": [model], "total": 1}))

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._say(*answer(asked[-1]))

        def _say(self, status: int, kind: str, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HUD_API_URL", url)
            patch.setenv("HUD_GATEWAY_URL", url)
            yield asked
        server.shutdown()


def event(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


def test_a_streamed_answer_is_put_together(models: Models) -> None:
    body = f': hello\n\ndata: {{"choices": []}}\n\n{event("one ")}{event("two")}data: [DONE]\n\n'
    with gateway(lambda _: (200, "text/event-stream; charset=utf-8", body)) as asked:
        said = models("chat", "far", "Count", "--system", "Be brief.", "--max-tokens", 5)

    assert (said.code, said.out) == (0, "one two\n")
    assert asked == [
        {
            "model": "team/far", "stream": True, "max_tokens": 5,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Count"}],
        }
    ]  # fmt: skip


def test_a_gateway_that_cannot_stream_is_asked_again_without(models: Models) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, str, str]:
        if body["stream"]:
            return 400, "application/json", '{"error": {"message": "stream: true is not supported"}}'
        return 200, "application/json", '{"choices": [{"message": {"content": "all at once"}}]}'

    with gateway(answer) as asked:
        assert models("chat", "team/far", "Hi").out == "all at once\n"
    assert [body["stream"] for body in asked] == [True, False]


def test_an_answer_that_breaks_off_is_an_error(models: Models) -> None:
    body = f'{event("one")}data: {{"error": {{"message": "the engine died"}}}}\n\n'
    with gateway(lambda _: (200, "text/event-stream", body)):
        said = models("chat", "far", "Count")

    assert said.code == 69
    assert "the engine died" in said.err


def test_a_model_of_the_managed_service_cannot_be_exported(models: Models, tmp_path: Path) -> None:
    with gateway(lambda _: (404, "application/json", "{}")):
        said = models("export", "far", tmp_path / "out")

    assert said.code == 2
    assert "managed service" in said.err
    assert not (tmp_path / "out").exists()
