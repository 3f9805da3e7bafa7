"""The service as a child process: settings in on one line, the URL out, until stdin closes.

The parent keeps our standard input open and never writes to it again. When the parent dies, however
it dies, the kernel closes it, and we end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

import uvloop
from pydantic import ValidationError

from hud_orchestrator import logs
from hud_orchestrator.errors import ExitCode, OrchestratorError, exit_code_of
from hud_orchestrator.heap import quiet_heap
from hud_orchestrator.local.serve import serve_until_told
from hud_orchestrator.local.settings import ServiceSettings


def main() -> int:
    """Serve; 0 after a graceful end, 1 when the service could not start."""
    logs.configure(stream=sys.stderr, as_json=True, level="info")
    try:
        settings = ServiceSettings.model_validate_json(sys.stdin.buffer.readline())
        with quiet_heap():
            uvloop.run(_serve(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _complain(f"settings: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except BaseExceptionGroup as group:
        return _complain(_reason(group), code=exit_code_of(group))
    except (OrchestratorError, OSError) as error:
        return _complain(str(error), code=exit_code_of(error))
    return 0


async def _serve(settings: ServiceSettings) -> None:
    orphaned = asyncio.Event()
    loop = asyncio.get_running_loop()
    watch = threading.Thread(target=_watch_parent, args=(loop, orphaned), daemon=True)
    watch.start()
    await serve_until_told(settings, ready=lambda url: _say({"url": url}), told=orphaned)


def _watch_parent(loop: asyncio.AbstractEventLoop, orphaned: asyncio.Event) -> None:
    # os.read, not sys.stdin: a thread that holds the buffer's lock at exit aborts the interpreter.
    while os.read(0, 4096):
        pass
    # The loop may be closed by now, which is fine: we are ending anyway.
    if not loop.is_closed():
        loop.call_soon_threadsafe(orphaned.set)


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return str(leaf) or type(leaf).__name__


def _complain(reason: str, *, code: ExitCode = ExitCode.RUN_FAILED) -> int:
    _say({"error": " ".join(reason.split()), "exit_code": int(code)})
    return 1


def _say(line: dict[str, str | int]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
