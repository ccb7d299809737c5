"""The address that is served, taken before anything is started: one that is not to be had is said at once."""

import errno
import socket

BACKLOG = 2_048
"""Connections that wait to be accepted: a burst of clients that connect again after a restart."""

_SUCH = "an address of this machine, such as 127.0.0.1 or 0.0.0.0"


class AddressUnusable(Exception):
    def __init__(self, host: str, port: int, why: str, advice: str) -> None:
        super().__init__(f"The address cannot be listened on: {host} port {port}: {why}. {advice}.")
        self.host, self.port = host, port


def bind(host: str, port: int, prefix: str = "--") -> socket.socket:
    """Bound and listening: who connects early waits until the process is ready. `prefix` is that of the options that gave the
    address. Raises AddressUnusable."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise AddressUnusable(host, port, "no such host is known", f"Give {prefix}host {_SUCH}") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressUnusable(host, port, *_said(error, prefix)) from None
    listener.setblocking(False)
    return listener


def _said(error: OSError, prefix: str) -> tuple[str, str]:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there", f"End that process, or give another {prefix}port (0 takes a free one)"
    if error.errno == errno.EACCES:
        return "this user may not listen there", f"Give a {prefix}port above 1023"
    return error.strerror or str(error), f"Give {prefix}host {_SUCH}"


def url(listener: socket.socket) -> str:
    """As a person on this machine would type it."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # nosec B104  # how it is shown, not what is listened on
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
