"""What a cluster is made of: ``cluster.json``, or a plain-text list of servers, as one frozen value.

Everything is checked here, once, so no other module has to doubt a :class:`ClusterConfig`. Whatever is wrong with a
file becomes one :class:`ConfigError`, whose text is one line that names the key. Unknown keys are refused, because a
misspelt key that is silently ignored is a setting that silently doesn't hold.

Two forms are accepted and told apart by the first character. JSON, as the contract gives it::

    {"cluster": "demo",
     "servers": [{"id": 1, "client": "127.0.0.1:8080", "http": "127.0.0.1:8180", "peer": "127.0.0.1:9080"}],
     "election_timeout_ms": [300, 600], "heartbeat_ms": 60, "max_file_bytes": 67108864,
     "request_timeout": 15, "snapshot_log_bytes": 67108864, "forward": true}

and a line ``<id> <host> <client port>`` per server, where the peer port is the client port + 1000 and the HTTP
port + 100, and ``#`` begins a comment.

In the files times are milliseconds or seconds, as people write them; in the value all times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

HTTP_PORT_OFFSET = 100
PEER_PORT_OFFSET = 1000
LAST_PORT = 65535
DEFAULT_CLUSTER_NAME = "quintet"
LONGEST_CLUSTER_NAME = 200
_LONGEST_HOST = 253
_DAY_SECONDS = 86_400


class ConfigError(Exception):
    """A configuration that can't be used. Its text is one line that names the key."""

    def __init__(self, key: str, why: str, *, source: str | None = None) -> None:
        self.key = key
        self.why = why
        line = ": ".join(part for part in (source, key, why) if part)
        super().__init__(line if line.isprintable() else ascii(line))


def _is_host(text: str) -> bool:
    """Whether to ask the resolver for it makes sense; of other texts it says so by exceptions that are no OSError."""
    if not 1 <= len(text) <= _LONGEST_HOST or not text.isprintable() or not {" ", "[", "]", "/"}.isdisjoint(text):
        return False
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


@attrs.frozen(slots=True, order=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port``, or ``[host]:port`` for IPv6.

        Raises:
            ValueError: the text is not of that form; its text says what is wrong.
        """
        host, colon, port_text = text.rpartition(":")
        if not colon:
            raise ValueError(f"{text!r} is not host:port")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r} is not host:port (an IPv6 address goes in brackets)")
        if not _is_host(host):
            raise ValueError(f"{text!r} has no usable host")
        if not (
            port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and 1 <= int(port_text) <= LAST_PORT
        ):
            raise ValueError(f"{text!r} has no port from 1 to {LAST_PORT}")
        return cls(host, int(port_text))


@attrs.frozen(slots=True)
class ServerConfig:
    """One server of the cluster, and where it listens."""

    server_id: int
    client: Address
    """The line protocol."""
    http: Address
    """Health and metrics."""
    peer: Address
    """The other servers."""


@attrs.frozen(slots=True, kw_only=True)
class ClusterConfig:
    """A whole cluster: the servers, and the settings that all of them share."""

    cluster: str
    """The name that servers show each other, so that two clusters are never mixed up."""
    servers: tuple[ServerConfig, ...]
    """By id."""
    election_timeout_min_us: int = 300_000
    election_timeout_max_us: int = 600_000
    heartbeat_us: int = 60_000
    max_file_bytes: int = 64 * 1024 * 1024
    request_timeout_us: int = 15_000_000
    """After that long without an outcome a request is answered by an error."""
    snapshot_log_bytes: int = 64 * 1024 * 1024
    """A snapshot is taken whenever the log has grown by this much; up to four times as much if the last one was big."""
    forward: bool = True
    """Whether a server that doesn't lead passes requests on, rather than redirect the client."""
    idle_timeout_us: int = 0
    """How long a client may be silent between two requests; 0 is for ever."""
    request_progress_timeout_us: int = 60_000_000
    """How long a client may be silent in the middle of a request, or leave its replies unread."""

    def server(self, server_id: int) -> ServerConfig:
        """The server of that id.

        Raises:
            ConfigError: there is none.
        """
        for server in self.servers:
            if server.server_id == server_id:
                return server
        known = ", ".join(str(server.server_id) for server in self.servers)
        raise ConfigError("servers", f"there is no server with id {server_id} (there are {known})")

    def to_json(self) -> str:
        """The text of a ``cluster.json`` that :func:`parse_config` reads back as an equal value."""
        document: dict[str, Any] = {
            "cluster": self.cluster,
            "servers": [
                {"id": each.server_id, "client": str(each.client), "http": str(each.http), "peer": str(each.peer)}
                for each in self.servers
            ],
            "election_timeout_ms": [self.election_timeout_min_us / 1000, self.election_timeout_max_us / 1000],
            "heartbeat_ms": self.heartbeat_us / 1000,
            "max_file_bytes": self.max_file_bytes,
            "request_timeout": self.request_timeout_us / 1_000_000,
            "snapshot_log_bytes": self.snapshot_log_bytes,
            "forward": self.forward,
            "idle_timeout": self.idle_timeout_us / 1_000_000,
            "request_progress_timeout": self.request_progress_timeout_us / 1_000_000,
        }
        return json.dumps({key: _without_fraction(value) for key, value in document.items()}, indent=1) + "\n"


def load_config(path: Path) -> ClusterConfig:
    """Read and check a configuration file of either form.

    Raises:
        ConfigError: it can't be read or can't be used; the text names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("", error.strerror or str(error), source=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("", "is not UTF-8 text", source=str(path)) from error
    try:
        return parse_config(text)
    except ConfigError as error:
        raise ConfigError(error.key, error.why, source=str(path)) from error


def parse_config(text: str) -> ClusterConfig:
    """Check a configuration of either form.

    Raises:
        ConfigError: it can't be used; the text names the key.
    """
    config = _parse_json(text) if text.lstrip()[:1] in {"{", "["} else _parse_list(text)
    _check_servers(config.servers)
    if config.election_timeout_min_us > config.election_timeout_max_us:
        raise ConfigError("election_timeout_ms", "the first number is the lesser of the two")
    if config.heartbeat_us >= config.election_timeout_min_us:
        raise ConfigError("heartbeat_ms", "has to be less than election_timeout_ms")
    return config


def local_cluster(*, nodes: int, host: str, port: int, name: str = DEFAULT_CLUSTER_NAME) -> ClusterConfig:
    """The cluster of so many servers on one machine: server i, from 1, has the client port ``port + i - 1``.

    Raises:
        ConfigError: a port or the host is not usable, or two servers would have the same address.
    """
    if not _is_host(host):
        raise ConfigError("host", f"{host!r} can't be a host's name or address")
    greatest = LAST_PORT - PEER_PORT_OFFSET - (nodes - 1)
    if port > greatest:
        why = f"{port} is more than {greatest}: the last of {nodes} peer ports is {port + LAST_PORT - greatest}"
        raise ConfigError("port", why)
    servers = tuple(_server_at(server_id, host, port + server_id - 1, "port") for server_id in range(1, nodes + 1))
    _check_servers(servers)
    return ClusterConfig(cluster=name, servers=servers)


def _server_at(server_id: int, host: str, port: int, key: str) -> ServerConfig:
    """A server by its client port alone; the other two ports follow from it."""
    bracketed = f"[{host}]" if ":" in host else host
    addresses = (
        _address(key, f"{bracketed}:{each}") for each in (port, port + HTTP_PORT_OFFSET, port + PEER_PORT_OFFSET)
    )
    client, http, peer = addresses
    return ServerConfig(server_id, client, http, peer)


def _check_servers(servers: tuple[ServerConfig, ...]) -> None:
    """No id and no address may be there twice."""
    ids: set[int] = set()
    owners: dict[tuple[str, int], str] = {}
    for server in servers:
        if server.server_id in ids:
            raise ConfigError("id", f"{server.server_id} is given to two servers")
        ids.add(server.server_id)
        for key, address in (("client", server.client), ("http", server.http), ("peer", server.peer)):
            other = owners.setdefault((address.host.lower(), address.port), f"{key} of server {server.server_id}")
            if other != f"{key} of server {server.server_id}":
                raise ConfigError(key, f"{address} of server {server.server_id} is also {other}")


# ---------------------------------------------------------------------------------------- plain text


def _parse_list(text: str) -> ClusterConfig:
    """The form with a line ``<id> <host> <port>`` for each server."""
    servers = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        where = f"line {number}"
        if len(fields) != 3:
            raise ConfigError(where, "is not <id> <host> <port>")
        server_id, port = _digits(f"{where}, id", fields[0]), _digits(f"{where}, port", fields[2])
        servers.append(_server_at(_server_id(f"{where}, id", server_id), fields[1], port, f"{where}, port"))
    if not servers:
        raise ConfigError("servers", "there are none: neither JSON nor a line <id> <host> <port>")
    return ClusterConfig(cluster=DEFAULT_CLUSTER_NAME, servers=tuple(sorted(servers, key=lambda each: each.server_id)))


def _digits(key: str, text: str) -> int:
    """A number in plain digits; ``int`` would also take signs, underscores and the digits of other scripts."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ConfigError(key, f"{text!r} is not a number")
    return int(text)


# ---------------------------------------------------------------------------------------------- JSON


def _parse_json(text: str) -> ClusterConfig:
    """The form of the contract."""
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError("", f"is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ConfigError("", "is not a JSON object")
    _check_keys("", document, required=("cluster", "servers"), optional=tuple(_SETTINGS))
    values: dict[str, Any] = {}
    for key, (read, targets) in _SETTINGS.items():
        if key in document:
            values.update(zip(targets, read(key, document[key]), strict=True))
    return ClusterConfig(
        cluster=_cluster_name("cluster", document["cluster"]),
        servers=_servers("servers", document["servers"]),
        **values,
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key given twice, of which JSON would keep the last, is an error."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ConfigError(key, "is given twice")
        result[key] = value
    return result


def _refuse_constant(text: str) -> float:
    """NaN and Infinity, which Python's JSON reads though they aren't JSON."""
    raise ValueError(f"{text} is not a number")


def _check_keys(
    where: str, value: dict[str, Any], *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Refuse what is unknown first: a missing key is often one that was misspelt."""
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in required and key not in optional:
            raise ConfigError(f"{prefix}{key}", "is not a key of the configuration")
    for key in required:
        if key not in value:
            raise ConfigError(f"{prefix}{key}", "is missing")


def _servers(key: str, value: Any) -> tuple[ServerConfig, ...]:
    """The list of servers, put in the order of their ids."""
    if not isinstance(value, list) or not value:
        raise ConfigError(key, "has to be a list of at least one server")
    servers = []
    for position, each in enumerate(value):
        where = f"{key}[{position}]"
        if not isinstance(each, dict):
            raise ConfigError(where, "has to be an object")
        _check_keys(where, each, required=("id", "client", "http", "peer"))
        servers.append(
            ServerConfig(
                _server_id(f"{where}.id", each["id"]),
                _address(f"{where}.client", each["client"]),
                _address(f"{where}.http", each["http"]),
                _address(f"{where}.peer", each["peer"]),
            )
        )
    return tuple(sorted(servers, key=lambda server: server.server_id))


def _server_id(key: str, value: Any) -> int:
    return _integer(key, value, least=1, most=1_000_000)


def _cluster_name(key: str, value: Any) -> str:
    """A name that can stand in a line of the log."""
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= LONGEST_CLUSTER_NAME:
        raise ConfigError(key, f"has to be a text of 1 to {LONGEST_CLUSTER_NAME} printable characters")
    return value


def _address(key: str, value: Any) -> Address:
    if not isinstance(value, str):
        raise ConfigError(key, "has to be a text host:port")
    try:
        return Address.parse(value)
    except ValueError as error:
        raise ConfigError(key, str(error)) from error


def _integer(key: str, value: Any, *, least: int, most: int) -> int:
    """A whole number; JSON's true and false, which are numbers to Python, are none."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(key, f"has to be a whole number from {least} to {most}")
    return value


def _microseconds(key: str, value: Any, *, unit_us: int, least: float, most: float) -> int:
    """A time in units of so many microseconds, fractions allowed, as whole microseconds."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(key, f"has to be a number from {least:g} to {most:.9g}")
    return round(value * unit_us)


def _seconds(key: str, value: Any) -> tuple[int]:
    return (_microseconds(key, value, unit_us=1_000_000, least=0.001, most=_DAY_SECONDS),)


def _seconds_or_never(key: str, value: Any) -> tuple[int]:
    if value == 0 and not isinstance(value, bool):
        return (0,)
    try:
        return _seconds(key, value)
    except ConfigError as error:
        raise ConfigError(key, f"{error.why}, or 0 for never") from error


def _milliseconds(key: str, value: Any) -> tuple[int]:
    return (_microseconds(key, value, unit_us=1000, least=1, most=_DAY_SECONDS * 1000),)


def _milliseconds_range(key: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError(key, "has to be a list of two numbers")
    (least_us,), (most_us,) = _milliseconds(key, value[0]), _milliseconds(key, value[1])
    return least_us, most_us


def _max_file_bytes(key: str, value: Any) -> tuple[int]:
    return (_integer(key, value, least=1, most=1 << 30),)


def _snapshot_log_bytes(key: str, value: Any) -> tuple[int]:
    return (_integer(key, value, least=1, most=1 << 40),)


def _flag(key: str, value: Any) -> tuple[bool]:
    if not isinstance(value, bool):
        raise ConfigError(key, "has to be true or false")
    return (value,)


def _without_fraction(value: Any) -> Any:
    """60 rather than 60.0, also within a list: people read the file."""
    if isinstance(value, list):
        return [_without_fraction(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# key in the file: how it is read, and the fields of ClusterConfig that it sets
_SETTINGS: dict[str, tuple[Callable[[str, Any], tuple[Any, ...]], tuple[str, ...]]] = {
    "election_timeout_ms": (_milliseconds_range, ("election_timeout_min_us", "election_timeout_max_us")),
    "heartbeat_ms": (_milliseconds, ("heartbeat_us",)),
    "max_file_bytes": (_max_file_bytes, ("max_file_bytes",)),
    "request_timeout": (_seconds, ("request_timeout_us",)),
    "snapshot_log_bytes": (_snapshot_log_bytes, ("snapshot_log_bytes",)),
    "forward": (_flag, ("forward",)),
    "idle_timeout": (_seconds_or_never, ("idle_timeout_us",)),
    "request_progress_timeout": (_seconds, ("request_progress_timeout_us",)),
}
