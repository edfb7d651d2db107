"""Where a run takes place: the network, the disks and the preloaded libraries that this machine allows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random

import attrs

from fileserver.torture import disks, preload, tun_network
from fileserver.torture.disks import SmallDisks
from fileserver.torture.networks import BreakableNetwork
from fileserver.torture.plan import FaultKind
from fileserver.torture.proxy_network import ProxyNetwork
from fileserver.torture.servers import Servers

SETTINGS: Mapping[str, object] = {"snapshot_log_bytes": 2 * 1024 * 1024}
"""Snapshots have to come often enough to be hit by faults; all else is as it is by default."""


@attrs.frozen(slots=True, kw_only=True)
class Setting:
    """What there is for a run."""

    network: BreakableNetwork
    disks: SmallDisks | None
    servers: Servers
    kinds: frozenset[FaultKind]
    """The faults that were wanted and can be had."""
    skipped: tuple[str, ...]
    """Those that can't, each with the reason."""


@contextmanager
def make_setting(
    directory: Path,
    ids: Collection[int],
    wanted: Collection[FaultKind],
    random: Random,
    *,
    apart: bool,
    proxy: bool = False,
    settings: Mapping[str, object] = SETTINGS,
) -> Iterator[Setting]:
    """Prepare a run in an empty directory, for the time of a ``with`` block.

    Args:
        directory: is filled with everything.
        ids: of the servers.
        wanted: the kinds of faults that may be needed.
        random: for the network.
        apart: this process has namespaces to itself, see `fileserver.torture.namespaces`.
        proxy: the network is to be broken by proxies even so.
        settings: more keys of cluster.json.

    Raises:
        OSError, NotReady: something that should be possible isn't.
    """
    kinds = set(wanted)
    skipped: list[str] = []

    def skip(kind: FaultKind, why: str) -> None:
        if kind in kinds:
            kinds.remove(kind)
            skipped.append(f"{kind.value}: {why}")

    has_tun = apart and not proxy and tun_network.can_be_used()
    has_disks = apart and disks.can_be_used()
    library = preload.build_library(directory) if kinds & {FaultKind.SLOW_FLUSH, FaultKind.CLOCK} else None
    if library is None:
        skip(FaultKind.SLOW_FLUSH, "there is no C compiler (apt-get install gcc)")
        skip(FaultKind.CLOCK, "there is no C compiler (apt-get install gcc)")
    if not has_disks:
        skip(FaultKind.DISK_FULL, "no small file systems can be mounted without namespaces of our own")
    network: BreakableNetwork = tun_network.TunNetwork(ids, random) if has_tun else ProxyNetwork(ids, random)
    small: SmallDisks | None = None
    try:
        small = SmallDisks(directory, ids) if FaultKind.DISK_FULL in kinds else None
        servers = Servers(ids, directory, network, library, settings)
        try:
            yield Setting(network=network, disks=small, servers=servers, kinds=frozenset(kinds), skipped=tuple(skipped))
        finally:
            servers.end_all()
    finally:
        if small is not None:
            small.close()
        network.close()
