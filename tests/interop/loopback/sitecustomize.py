"""Forbid connections that leave this machine, in every Python process that has this directory on its path.

The SDK's defaults are public hosts and its reporting swallows errors, so a forgotten address would
otherwise go unnoticed. What was tried is also written down, for the launcher to see.
"""

import ipaddress
import os
import sys
from pathlib import Path


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _stay_local(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if not _is_local(host):
        with Path(os.environ["INTEROP_ESCAPES"]).open("a") as file:
            file.write(f"{event} {host}\n")
        raise OSError(f"{host} is not this machine")


if "INTEROP_ESCAPES" in os.environ:
    sys.addaudithook(_stay_local)
