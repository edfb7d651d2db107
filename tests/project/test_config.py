"""Configurations, and the one line that each mistake in one gets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from fileserver.config import (
    Address,
    ClusterConfig,
    ConfigError,
    ServerConfig,
    load_config,
    local_cluster,
    parse_config,
)

Document = dict[str, Any]


def server(number: int) -> Document:
    return {
        "id": number,
        "client": f"127.0.0.1:{8079 + number}",
        "http": f"127.0.0.1:{8179 + number}",
        "peer": f"127.0.0.1:{9079 + number}",
    }


def document(**changes: Any) -> Document:
    """The contract's example, with three servers."""
    return {
        "cluster": "demo",
        "servers": [server(1), server(2), server(3)],
        "election_timeout_ms": [300, 600],
        "heartbeat_ms": 60,
        "max_file_bytes": 67108864,
        "request_timeout": 15,
        "snapshot_log_bytes": 67108864,
        "forward": True,
        **changes,
    }


def without(value: Document, key: str) -> Document:
    return {name: each for name, each in value.items() if name != key}


def test_the_contracts_example() -> None:
    config = parse_config(json.dumps(document()))
    assert config.cluster == "demo"
    assert config.server(2) == ServerConfig(
        2, Address("127.0.0.1", 8081), Address("127.0.0.1", 8181), Address("127.0.0.1", 9081)
    )
    assert (config.election_timeout_min_us, config.election_timeout_max_us) == (300_000, 600_000)
    assert config.heartbeat_us == 60_000
    assert config.max_file_bytes == config.snapshot_log_bytes == 64 * 1024 * 1024
    assert config.request_timeout_us == 15_000_000
    assert config.forward is True


def test_what_may_be_left_out_has_the_contracts_values() -> None:
    full = parse_config(json.dumps(document()))
    assert parse_config(json.dumps({"cluster": "demo", "servers": document()["servers"]})) == full
    assert full.idle_timeout_us == 0
    assert full.request_progress_timeout_us == 60_000_000


def test_every_setting_is_read() -> None:
    text = json.dumps(
        document(
            election_timeout_ms=[1000, 2000.5],
            heartbeat_ms=99.5,
            max_file_bytes=1,
            request_timeout=0.25,
            snapshot_log_bytes=2,
            forward=False,
            idle_timeout=3,
            request_progress_timeout=4,
        )
    )
    servers = parse_config(json.dumps(document())).servers
    assert parse_config(text) == ClusterConfig(
        cluster="demo",
        servers=servers,
        election_timeout_min_us=1_000_000,
        election_timeout_max_us=2_000_500,
        heartbeat_us=99_500,
        max_file_bytes=1,
        request_timeout_us=250_000,
        snapshot_log_bytes=2,
        forward=False,
        idle_timeout_us=3_000_000,
        request_progress_timeout_us=4_000_000,
    )


def test_servers_are_put_in_the_order_of_their_ids() -> None:
    config = parse_config(json.dumps(document(servers=[server(3), server(1)])))
    assert [each.server_id for each in config.servers] == [1, 3]


def test_what_is_written_is_read_back() -> None:
    config = local_cluster(nodes=5, host="::1", port=7000, name="five")
    odd = attrs.evolve(config, heartbeat_us=12_345, idle_timeout_us=1_500_000)
    assert parse_config(config.to_json()) == config
    assert parse_config(odd.to_json()) == odd
    assert '"heartbeat_ms": 60,' in config.to_json()


def test_a_plain_list_of_servers() -> None:
    text = "# the machines of room 4\n\n 2 beta 8080  # the old one\n1 alpha 8080\n"
    assert parse_config(text).servers == (
        ServerConfig(1, Address("alpha", 8080), Address("alpha", 8180), Address("alpha", 9080)),
        ServerConfig(2, Address("beta", 8080), Address("beta", 8180), Address("beta", 9080)),
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda value: without(value, "cluster"), "cluster: is missing"),
        (lambda value: without(value, "servers"), "servers: is missing"),
        (lambda value: value | {"hartbeat_ms": 60}, "hartbeat_ms: is not a key"),
        (lambda value: value | {"cluster": ""}, "cluster:"),
        (lambda value: value | {"cluster": "a\nb"}, "cluster:"),
        (lambda value: value | {"cluster": "x" * 201}, "cluster:"),
        (lambda value: value | {"cluster": 5}, "cluster:"),
        (lambda value: value | {"servers": []}, "servers:"),
        (lambda value: value | {"servers": {}}, "servers:"),
        (lambda value: value | {"servers": [1]}, "servers[0]:"),
        (lambda value: value | {"servers": [without(server(1), "peer")]}, "servers[0].peer: is missing"),
        (lambda value: value | {"servers": [server(1) | {"port": 1}]}, "servers[0].port: is not a key"),
        (lambda value: value | {"servers": [server(1), server(1)]}, "id: 1 is given to two servers"),
        (lambda value: value | {"servers": [server(1), server(2) | {"id": 1}]}, "id: 1 is given to two"),
        (lambda value: value | {"servers": [server(1) | {"id": 0}]}, "servers[0].id:"),
        (lambda value: value | {"servers": [server(1) | {"id": "1"}]}, "servers[0].id:"),
        (lambda value: value | {"servers": [server(1) | {"id": True}]}, "servers[0].id:"),
        (lambda value: value | {"servers": [server(1) | {"client": 8080}]}, "servers[0].client:"),
        (lambda value: value | {"servers": [server(1) | {"http": "127.0.0.1"}]}, "servers[0].http:"),
        (
            lambda value: value | {"servers": [server(1), server(2) | {"peer": "127.0.0.1:9080"}]},
            "peer: 127.0.0.1:9080",
        ),
        (lambda value: value | {"servers": [server(1) | {"peer": "127.0.0.1:8080"}]}, "peer: 127.0.0.1:8080"),
        (lambda value: value | {"election_timeout_ms": 300}, "election_timeout_ms:"),
        (lambda value: value | {"election_timeout_ms": [300]}, "election_timeout_ms:"),
        (lambda value: value | {"election_timeout_ms": [300, "600"]}, "election_timeout_ms:"),
        (lambda value: value | {"election_timeout_ms": [600, 300]}, "election_timeout_ms:"),
        (lambda value: value | {"heartbeat_ms": 0}, "heartbeat_ms:"),
        (lambda value: value | {"heartbeat_ms": 300}, "heartbeat_ms: has to be less"),
        (lambda value: value | {"heartbeat_ms": True}, "heartbeat_ms:"),
        (lambda value: value | {"heartbeat_ms": 10**400}, "heartbeat_ms:"),
        (lambda value: value | {"max_file_bytes": 0}, "max_file_bytes:"),
        (lambda value: value | {"max_file_bytes": 1.5}, "max_file_bytes:"),
        (lambda value: value | {"request_timeout": 0}, "request_timeout:"),
        (lambda value: value | {"request_timeout": None}, "request_timeout:"),
        (lambda value: value | {"snapshot_log_bytes": -1}, "snapshot_log_bytes:"),
        (lambda value: value | {"forward": 1}, "forward:"),
        (
            lambda value: value | {"idle_timeout": -1},
            "idle_timeout: has to be a number from 0.001 to 86400, or 0 for never",
        ),
        (lambda value: value | {"idle_timeout": False}, "idle_timeout:"),
        (lambda value: value | {"request_progress_timeout": 0}, "request_progress_timeout:"),
        (lambda value: value | {"two\nlines": 1}, "two\\nlines"),
    ],
)
def test_each_mistake_gets_one_line_that_names_the_key(change: Callable[[Document], Document], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(change(document())))
    assert key in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "servers: there are none"),
        ("# nothing\n", "servers: there are none"),
        ("1 alpha", "line 1: is not <id> <host> <port>"),
        ("1 alpha 80\ntwo beta 80", "line 2, id:"),
        ("0 alpha 80", "line 1, id:"),
        ("1 alpha +80", "line 1, port:"),
        ("1 alpha ٨٠", "line 1, port:"),
        ("1 alpha 65000", "line 1, port:"),
        ("1 al[pha 80", "line 1, port:"),
        ("1 alpha 80\n1 beta 80", "id: 1 is given to two servers"),
        ("1 alpha 80\n2 ALPHA 80", "client: ALPHA:80"),
        ("1 alpha 80\n2 alpha 180", "client: alpha:180"),
        ("[]", "is not a JSON object"),
        ("{", "is not JSON"),
        ('{"cluster": "a", "cluster": "b"}', "cluster: is given twice"),
        ('{"cluster": NaN}', "is not JSON (NaN"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_each_unreadable_text_gets_one_line(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert key in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", ":80", "host:0", "host:65536", "host:-1", "host:8_0", "::1:80", "[]:80", "a b:80"),
        # The resolver would answer these with a ValueError, at some later time, rather than with an OSError.
        *("h/x:80", "10..0.1:80", "h\0:80", "h\u00a0:80", "\ud800:80", f"{'h' * 64}:80", f"{'h.' * 127}:80"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|port"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "localhost:65535", "[::1]:8080"])
def test_an_address_and_its_text(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_an_id_that_no_server_has() -> None:
    with pytest.raises(ConfigError, match=r"servers: there is no server with id 4 \(there are 1, 2, 3\)"):
        parse_config(json.dumps(document())).server(4)


def test_ports_of_a_local_cluster() -> None:
    config = local_cluster(nodes=5, host="127.0.0.1", port=8080)
    last = config.server(5)
    assert (last.client.port, last.http.port, last.peer.port) == (8084, 8184, 9084)


@pytest.mark.parametrize("port", [0, 64_536, 70_000])
def test_a_local_cluster_needs_sound_ports(port: int) -> None:
    with pytest.raises(ConfigError, match="port"):
        local_cluster(nodes=1, host="127.0.0.1", port=port)


def test_a_local_cluster_needs_a_sound_host() -> None:
    with pytest.raises(ConfigError, match=r"^host: "):
        local_cluster(nodes=1, host="not a host", port=8080)


def test_a_local_cluster_of_so_many_that_ports_meet() -> None:
    with pytest.raises(ConfigError, match="is also"):
        local_cluster(nodes=101, host="127.0.0.1", port=8080)


def test_load_config_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    with pytest.raises(ConfigError, match=f"{path}: No such file"):
        load_config(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=f"{path}: is not UTF-8"):
        load_config(path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match=f"{path}: cluster: is missing"):
        load_config(path)
    path.write_text(json.dumps(document()))
    assert load_config(path) == parse_config(json.dumps(document()))
