"""``python -m hud_orchestrator.local``: the embedded service, which its parent starts and ends."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> int:
    """Serve until the parent has gone; what :func:`child.main` returns."""
    # Who stops a run may signal all of its processes; the daemon has a step in hand then, and needs us until
    # it is taken. At once, for the rest takes seconds to import; and not SIG_IGN, which programs that we
    # start would inherit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # What is made by importing is there to stay, and need not be looked at for garbage meanwhile.
    gc.disable()
    from hud_orchestrator.local.child import main as serve

    gc.enable()
    code = serve()
    gc.freeze()  # nor at the end of the process, where that took a second
    return code


if __name__ == "__main__":
    sys.exit(main())
