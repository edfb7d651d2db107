"""Damaged and full disks, wrong configurations, and servers where they don't belong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.stage4_cluster import ports
from tests.stage4_cluster.conftest import Figure, MakeCluster
from tests.stage4_cluster.harness import QUICK_ELECTIONS, Cluster, configuration, eventually, run_program
from tests.stage4_cluster.line_client import LineClient, change, connected, version_in

MIB = 1 << 20


def end_of_data(segment: Path) -> int:
    """Where a segment's last record ends, whether or not zeros follow."""
    return len(segment.read_bytes().rstrip(b"\0"))


def fingerprint(directory: Path) -> dict[str, str]:
    """What is in a directory, except for the log for people."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.name not in {"server.log", "output", "pid", "lock"}
    }


def flip(segment: Path, position: int) -> None:
    """Change a bit of a file."""
    with segment.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))


async def fill(cluster: Cluster, count: int = 60) -> dict[str, bytes]:
    """Write files so that no record of any server's log has many: some get what comes in a short time as one."""
    files = {f"file-{number}": f"content {number}".encode() * 20 for number in range(count)}
    async with connected(cluster.port(await cluster.leader())) as client:
        for number, (name, content) in enumerate(files.items()):
            await client.write(name, content)
            if number % 3 == 0:
                await cluster.same_everywhere()
    return files


async def check_files(client: LineClient, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        file = await client.read(name)
        assert file is not None, name
        assert file.content == content


@pytest.mark.parametrize("way", ["truncated", "zeroed", "garbled"])
async def test_a_torn_last_record_is_dropped_and_fetched_again(make_cluster: MakeCluster, way: str) -> None:
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    await cluster.start()
    files = await fill(cluster)
    victim = await cluster.follower()
    await cluster.same_everywhere()
    cluster.kill(victim)
    segment = cluster.segments(victim)[-1]
    end = end_of_data(segment)
    if way == "truncated":
        os.truncate(segment, end - 5)
    else:
        with segment.open("r+b") as file:
            file.seek(end - 5)
            file.write(bytes(5) if way == "zeroed" else b"\x5a\xa5\x5a\xa5\x5a")
    await cluster.start(victim)
    await cluster.same_everywhere()
    async with connected(cluster.port(victim)) as client:
        await check_files(client, files)
    assert "level=warning" in cluster.log(victim)
    assert segment.name in cluster.log(victim)
    # The damage is gone for good.
    await cluster.stop(victim)
    await cluster.start(victim)
    await cluster.same_everywhere()


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
async def test_a_flipped_byte_in_the_middle_of_the_log_is_refused(make_cluster: MakeCluster, part: float) -> None:
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    await cluster.start()
    files = await fill(cluster)
    victim = await cluster.follower()
    await cluster.stop(victim)
    segment = cluster.segments(victim)[0]
    position = int(end_of_data(segment) * part)
    flip(segment, position)
    before = fingerprint(cluster.place(victim))
    done = run_program("fileserver", "--config", cluster.config_file, "--id", victim)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert str(segment) in line
    offsets = [int(word.strip(":,;.")) for word in line.split() if word.strip(":,;.").isdigit()]
    assert any(0 <= position - offset < 10_000 for offset in offsets), line
    assert fingerprint(cluster.place(victim)) == before, "nothing is deleted or changed"
    assert segment.name in cluster.log(victim)
    # The others go on; and a new directory is filled from them by whoever decides to.
    async with connected(cluster.port(await cluster.leader())) as client:
        await check_files(client, files)


async def test_a_leader_whose_log_is_found_damaged_ends_and_another_one_serves(make_cluster: MakeCluster) -> None:
    """It has to read what isn't in its memory any more, for a follower that was away."""
    cluster = make_cluster(3, snapshot_log_bytes=4 * MIB, **QUICK_ELECTIONS)
    leader = await cluster.start()
    follower = await cluster.follower()
    cluster.kill(follower)
    async with connected(cluster.port(leader)) as client:
        for number in range(50):
            await client.write(f"file-{number}", bytes([number]) * 60_000)
    segment = cluster.segments(leader)[1]
    flip(segment, 5000)
    cluster.launch(follower)
    assert await cluster.exit_status(leader) == 1
    assert f"{segment} is damaged" in cluster.log(leader)
    other = await cluster.leader()
    await cluster.same_everywhere()
    async with connected(cluster.port(other)) as client:
        await check_files(client, {f"file-{number}": bytes([number]) * 60_000 for number in range(50)})


async def test_a_damaged_snapshot_falls_back_or_is_refused(make_cluster: MakeCluster) -> None:
    """A server never serves from a snapshot that doesn't check out."""
    cluster = make_cluster(3, snapshot_log_bytes=64 * 1024, **QUICK_ELECTIONS)
    await cluster.start()
    files: dict[str, bytes] = {}
    victim = await cluster.follower()
    async with connected(cluster.port(victim)) as client:
        for turn in range(12):
            for number in range(10):
                name, content = f"{turn}-{number}", bytes([turn]) * 3000
                files[name] = content
                await client.write(name, content)

    async def has_two() -> bool:
        return len(list(cluster.place(victim).glob("*.snap"))) == 2

    await eventually("there are two snapshots", has_two)
    await cluster.same_everywhere()
    cluster.kill(victim)
    newest = max(cluster.place(victim).glob("*.snap"))
    with newest.open("r+b") as file:
        file.seek(newest.stat().st_size // 2)
        file.write(b"damaged!")
    cluster.launch(victim)

    async def serves() -> bool:
        return await cluster.status(victim) is not None

    await eventually("the server starts from the snapshot before", serves)
    async with connected(cluster.port(victim)) as client:
        await check_files(client, files)
    assert newest.name in cluster.log(victim)
    await cluster.same_everywhere()


# ----------------------------------------------------------------------------------------- full disk

Mount = Callable[[Path, int], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a small file system in memory, or makes one that was mounted so larger.

    To be named before make_cluster, so that the servers have ended when it is unmounted.
    """
    mounted: list[Path] = []

    def run(place: Path, size_bytes: int) -> None:
        options = f"size={size_bytes}" + (",remount" if place in mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "quintet-test", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"needs to mount file systems: {done.stderr.strip()}")
        if place not in mounted:
            mounted.append(place)

    if os.geteuid() != 0:
        pytest.skip("needs to mount file systems, which takes root")
    yield run
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("full", ["a majority", "all"])
async def test_full_disks(mount: Mount, make_cluster: MakeCluster, figure: Figure, full: str) -> None:
    """Changes are refused, nothing is lost, and it goes on by itself once there is room."""
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    small = cluster.ids if full == "all" else cluster.ids[:2]
    for server_id in small:
        cluster.place(server_id).mkdir()
        mount(cluster.place(server_id), 6 * MIB)
    await cluster.start()
    acknowledged: dict[str, int] = {}
    last_version = 0
    async with connected(cluster.port(3)) as client:
        refusal = b""
        for number in range(200):
            reply = await client.ask(change("write", f"file-{number}", bytes([number]) * 100_000))
            if not reply.startswith(b"OK "):
                refusal = reply
                break
            last_version = acknowledged[f"file-{number}"] = version_in(reply)
        figure(f"disks of 6 MiB took {len(acknowledged)} files of 100,000 bytes")
        assert refusal.startswith(b"ERR_INTERNAL "), refusal
        assert b"not applied" in refusal or b"outcome unknown" in refusal
        assert 5 <= len(acknowledged) <= 60
        # Reads go on, through every server.
        for server_id in cluster.ids:
            async with connected(cluster.port(server_id)) as reader:
                for name, version in acknowledged.items():
                    file = await reader.stat(name)
                    assert file is not None, (server_id, name)
                    assert file.version == version
        # One full leader is enough to refuse, and so are others that make a majority: whoever it was has said so.
        logs = {server_id: cluster.log(server_id) for server_id in small}
        assert any("the disk is full" in log for log in logs.values()), logs
        # A restart in that state finds everything, serves reads, and refuses changes as before.
        if full == "all":
            cluster.kill(*cluster.ids)
            await cluster.start()
            async with connected(cluster.port(1)) as reader:
                for name, version in acknowledged.items():
                    file = await reader.stat(name)
                    assert file is not None
                    assert file.version == version
                assert (await reader.ask(change("write", "no-room", bytes(MIB)))).startswith(b"ERR_INTERNAL ")
        for server_id in small:
            mount(cluster.place(server_id), 200 * MIB)
    async with connected(cluster.port(3)) as client:

        async def is_accepted() -> int | None:
            reply = await client.ask(b"write room 1\r\nx\r\n")
            return version_in(reply) if reply.startswith(b"OK ") else None

        version = await eventually("changes are accepted again", is_accepted)
        assert version > last_version
        await client.write("more", bytes(MIB))
    await cluster.same_everywhere()
    cluster.kill(*cluster.ids)
    await cluster.start()
    async with connected(cluster.port(1)) as client:
        for name, version in acknowledged.items():
            file = await client.stat(name)
            assert file is not None
            assert file.version == version
    await cluster.same_everywhere()


async def test_one_full_disk_stops_nobody(mount: Mount, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    cluster.place(2).mkdir()
    mount(cluster.place(2), 4 * MIB)
    await cluster.start()
    if await cluster.leader() == 2:
        # Where it leads it may refuse changes; that one of the others takes over is not promised.
        await cluster.stop(2)
        await cluster.start(2)
    async with connected(cluster.port(1)) as client:
        for number in range(100):
            await client.write(f"file-{number}", bytes([number]) * 100_000)
        mount(cluster.place(2), 200 * MIB)
    await cluster.same_everywhere()


# ------------------------------------------------------------------- configurations and wrong places


@pytest.mark.parametrize(
    ("change_it", "key"),
    [
        (lambda config: config.pop("cluster"), "cluster"),
        (lambda config: config.pop("servers"), "servers"),
        (lambda config: config.update(colour="red"), "colour"),
        (lambda config: config["servers"][1].update(id=1), "id"),
        (lambda config: config["servers"][1].update(client=config["servers"][0]["peer"]), "client"),
        (lambda config: config["servers"][0].update(peer="nowhere"), "peer"),
        (lambda config: config["servers"][0].update(http="127.0.0.1:99999"), "http"),
        (lambda config: config["servers"][0].pop("peer"), "peer"),
        (lambda config: config.update(election_timeout_ms=300), "election_timeout_ms"),
        (lambda config: config.update(heartbeat_ms=-1), "heartbeat_ms"),
        (lambda config: config.update(max_file_bytes="big"), "max_file_bytes"),
        (lambda config: config.update(forward=1), "forward"),
    ],
)
def test_a_wrong_configuration_is_said_in_one_line(
    tmp_path: Path, change_it: Callable[[dict[str, Any]], object], key: str
) -> None:
    config = configuration(20_000, 3)
    change_it(config)
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(config))
    done = run_program("fileserver", "--config", path, "--id", 1)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert key in line
    assert not (tmp_path / "server-1").exists()


async def test_a_second_server_on_the_same_directory_is_refused(five: Cluster) -> None:
    done = await trio.to_thread.run_sync(run_program, "fileserver", "--config", five.config_file, "--id", 1)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "server 1" in line
    async with connected(five.port(1)) as client:
        assert await client.write("unharmed", b"x") > 0


async def test_a_directory_of_another_server_or_cluster_is_refused(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(1)
    await cluster.start()
    await cluster.stop(1)
    before = fingerprint(cluster.place(1))
    reserved = ports.reserve()
    try:
        for name, server_id in (("another", 1), ("under-test", 2)):
            config = {**configuration(reserved.first, 2), "cluster": name}
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(config))
            place = tmp_path / f"server-{server_id}"
            if place.is_symlink():
                place.unlink()
            place.symlink_to(cluster.place(1))
            done = await trio.to_thread.run_sync(run_program, "fileserver", "--config", path, "--id", server_id)
            (line,) = done.stderr.splitlines()
            assert done.returncode == 2, line
            assert str(place) in line
    finally:
        reserved.release()
    assert fingerprint(cluster.place(1)) == before


async def test_a_peer_of_another_cluster_is_refused(make_cluster: MakeCluster) -> None:
    """Its messages, and so its terms, never reach the cluster; each side says so in its log, once."""
    cluster = make_cluster(3, **QUICK_ELECTIONS)
    cluster.launch(1, 2)
    await cluster.leader()
    before = await cluster.same_everywhere()
    right = cluster.config_file.read_text()
    cluster.config_file.write_text(right.replace("under-test", "another-one"))
    try:
        cluster.launch(3)

        async def is_refused() -> bool:
            logs = [cluster.log(server_id) for server_id in (1, 2)]
            return all("another-one" in log for log in logs)

        await eventually("the servers say that they refuse it", is_refused)
        status = await eventually("it answers", lambda: cluster.status(3))
        assert status["leader"] is None
        async with connected(cluster.port(1)) as client:
            for number in range(200):
                await client.write("unharmed", b"%d" % number)
        after = (await cluster.statuses((1, 2))) or {}
        assert {each["term"] for each in after.values()} == {before["term"]}
        for server_id in (1, 2):
            lines = [line for line in cluster.log(server_id).splitlines() if "another-one" in line]
            assert 1 <= len(lines) <= 2, lines
    finally:
        cluster.kill(3)
        cluster.config_file.write_text(right)
    for path in cluster.place(3).iterdir():
        path.unlink()
    await cluster.start(3)
    await cluster.same_everywhere()
