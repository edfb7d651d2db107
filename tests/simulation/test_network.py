"""Links of every weather, by themselves."""

import random

import attrs
import pytest

from fileserver.simulation.loop import Loop
from fileserver.simulation.network import LinkWeather, SimulatedNetwork
from fileserver.simulation.watcher import Watcher

LINK = (1, 2)


@attrs.define
class Fates(Watcher):
    """What became of each message."""

    arrivals: list[tuple[int, bytes]] = attrs.Factory(list)
    losses: list[bytes] = attrs.Factory(list)

    def arrived(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        assert left_us <= now_us
        assert (sender, receiver) == LINK
        self.arrivals.append((now_us, message))

    def lost(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        self.losses.append(message)


@attrs.define
class Setting:
    """A network with a receiver that may be down."""

    weather: LinkWeather = attrs.Factory(LinkWeather)
    loop: Loop = attrs.Factory(Loop)
    fates: Fates = attrs.Factory(Fates)
    is_up: bool = True
    delivered: list[bytes] = attrs.Factory(list)

    def network(self, seed: int = 1) -> SimulatedNetwork:
        return SimulatedNetwork(self.loop, random.Random(seed), self.weather, self._deliver, self.fates)

    def _deliver(self, sender: int, receiver: int, message: bytes) -> bool:
        if self.is_up:
            self.delivered.append(message)
        return self.is_up


def send(setting: Setting, network: SimulatedNetwork, count: int, every_us: int = 100) -> list[bytes]:
    messages = [b"%d" % number for number in range(count)]
    for message in messages:
        network.send(*LINK, message, setting.loop.now_us)
        setting.loop.run_until(setting.loop.now_us + every_us)
    setting.loop.run_until(setting.loop.now_us + 20_000_000)
    return messages


def test_good_weather_carries_everything_once_in_order_and_in_time() -> None:
    setting = Setting()
    network = setting.network()
    messages = send(setting, network, 100, every_us=2_000)
    assert setting.delivered == messages == [message for _, message in setting.fates.arrivals]
    assert all(200 <= at_us - 2_000 * place <= 1_000 for place, (at_us, _) in enumerate(setting.fates.arrivals))
    assert (network.sent, network.lost) == (100, 0)


def test_in_order_means_that_nothing_overtakes() -> None:
    setting = Setting(LinkWeather(delay_us_max=50_000))
    assert send(setting, setting.network(), 200) == setting.delivered
    other = Setting(LinkWeather(delay_us_max=50_000, in_order=False))
    messages = send(other, other.network(), 200)
    assert other.delivered != messages
    assert sorted(other.delivered) == sorted(messages)


def test_loss_repeats_and_long_delays_come_as_often_as_they_should() -> None:
    setting = Setting(LinkWeather(loss=0.3, repeats=0.2, long_delays=0.1, long_delay_us_max=1_000_000))
    network = setting.network()
    send(setting, network, 2_000)
    assert 500 < network.lost < 700
    assert len(setting.fates.losses) == network.lost
    repeated = len(setting.delivered) - len(set(setting.delivered))
    assert 200 < repeated < 360
    late = sum(at_us - int(message) * 100 > 2_000 for at_us, message in setting.fates.arrivals)
    assert 90 < late < 250


@pytest.mark.parametrize("cut_first", [True, False])
def test_a_cut_link_loses_what_is_sent_and_what_is_under_way(cut_first: bool) -> None:
    setting = Setting()
    network = setting.network()
    if cut_first:
        network.cut_exactly(frozenset({LINK}))
    network.send(*LINK, b"x", 0)
    network.cut_exactly(frozenset({LINK}))
    setting.loop.run_until(10_000)
    assert (setting.delivered, setting.fates.losses, network.lost) == ([], [b"x"], 1)
    network.cut_exactly(frozenset({(2, 1)}))
    network.send(*LINK, b"y", 10_000)
    setting.loop.run_until(20_000)
    assert setting.delivered == [b"y"]


def test_who_is_down_gets_nothing() -> None:
    setting = Setting(is_up=False)
    network = setting.network()
    network.send(*LINK, b"x", 0)
    setting.loop.run_until(10_000)
    assert (setting.fates.arrivals, setting.fates.losses) == ([], [b"x"])


def test_when_it_is_calm_nothing_late_comes_any_more() -> None:
    setting = Setting(LinkWeather(long_delays=1.0))
    network = setting.network()
    late = [b"late %d" % number for number in range(100)]
    for message in late:
        network.send(*LINK, message, setting.loop.now_us)
    setting.loop.run_until(setting.loop.now_us + 1_000)
    network.calm()
    quick = send(setting, network, 100)
    assert sorted(setting.fates.losses) == sorted(late)
    assert setting.delivered == quick
