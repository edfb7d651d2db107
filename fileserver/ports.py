"""Finding out, before anything is started, whether it will be able to listen."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from fileserver.config import Address, ServerConfig


class AddressUnusable(Exception):
    """An address can't be listened on. The text is one line that names it."""


def addresses_of(server: ServerConfig) -> list[tuple[str, Address]]:
    """What a server listens on, each with what it is for."""
    return [
        (f"client port of server {server.server_id}", server.client),
        (f"HTTP port of server {server.server_id}", server.http),
        (f"peer port of server {server.server_id}", server.peer),
    ]


def check_free(addresses: Iterable[tuple[str, Address]]) -> None:
    """Bind to each address for a moment.

    Raises:
        AddressUnusable: the first that is in use, or that isn't this machine's.
    """
    for purpose, address in addresses:
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as trial:
                # As a server does; without it a port is "in use" for a minute after its last connection.
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(place)
                trial.listen(1)  # only this tells of another socket that listens with the same option
        except UnicodeError as error:
            raise AddressUnusable(f"{address}: {address.host!r} can't be a host's name ({purpose})") from error
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = f"port {address.port} is in use" if in_use else (error.strerror or str(error))
            raise AddressUnusable(f"{address}: {why} ({purpose})") from error
