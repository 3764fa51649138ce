"""Serves the page: on which address, to whom, and until when."""

import contextlib
import errno
import ipaddress
import secrets
import socket
import sys
from pathlib import Path

from asr_lab.errors import AsrLabError

PORT = 8642
TRIES = 20  # ports after a taken one
# So long a thread that reads a thousand files may keep another one waiting, several times an answer; Python's own 5 ms
# add up.
SWITCH_S = 0.0005
SHORTEST = 8  # characters of a token that somebody chose


class ServeError(AsrLabError):
    """The page cannot be served like that."""


def serve(outputs: Path, host: str, port: int | None, token: str | None, with_audio: bool = True) -> None:
    """Until Ctrl-C. `port` None: `PORT`, or the next one that is free.

    Raises:
        RunError: no outputs folder.
        ServeError: the port or the address cannot be had, or the token is too short.
    """
    import uvicorn

    from asr_lab.dashboard.app import application
    from asr_lab.dashboard.security import LOOPBACK

    if token is not None and len(token) < SHORTEST:
        raise ServeError(f"--token: at least {SHORTEST} characters, {len(token)} came; leave it out to get a good one")
    local = is_loopback(host)
    if not local and token is None:
        token = secrets.token_urlsafe(32)
    app = application(outputs, with_audio, {*LOOPBACK, host.lower()} if local else None, token, read_ahead=True)
    listening = bind(host, port)
    with listening:
        where = listening.getsockname()[1]
        if port is None and where != PORT:
            print(f"port {PORT} is taken; this is port {where}", flush=True)
        print(f"{Path(outputs)} at {address(host, where, token)} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            app,
            loop="asyncio",  # the same everywhere, whatever else is installed
            http="h11",
            access_log=False,
            log_level="error",
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        sys.setswitchinterval(SWITCH_S)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has closed everything and raises it again
            uvicorn.Server(config).run(sockets=[listening])
    print("ended", flush=True)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int | None) -> socket.socket:
    """A socket that listens. Raises ServeError."""
    for number in [port] if port is not None else range(PORT, PORT + TRIES):
        try:
            return _bound(host, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ServeError(f"--host {host} --port {number}: cannot be had ({error.strerror or error})") from None
    if port is None:
        raise ServeError(f"ports {PORT} to {PORT + TRIES - 1} are all taken; choose another with --port")
    raise ServeError(f"port {port} is taken{_next_free(host, port)}")


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(128)
    except OSError:
        found.close()
        raise
    return found


def _next_free(host: str, port: int) -> str:
    for number in range(port + 1, min(port + TRIES, 65536)):
        with contextlib.suppress(OSError), _bound(host, number):
            return f"; {number} is free: --port {number}"
    return "; choose another with --port"


def address(host: str, port: int, token: str | None) -> str:
    """What somebody types into a browser."""
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
