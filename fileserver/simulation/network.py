"""The links between servers: each direction of each pair by itself slow, lossy, repeating, out of order, or cut.

The product's transport keeps order and loses only what was under way when a connection broke. This network is worse:
what holds here holds there. A message is bytes, as the product sends them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

from fileserver.simulation.loop import Loop
from fileserver.simulation.watcher import Watcher
from fileserver.torture.shapes import Links

Deliver = Callable[[int, int, bytes], bool]
"""``deliver(sender, receiver, message)``; False when the receiver doesn't run."""


@attrs.define(slots=True, kw_only=True)
class LinkWeather:
    """How messages fare."""

    delay_us_min: int = 200
    delay_us_max: int = 1_000
    loss: float = 0.0
    repeats: float = 0.0
    long_delays: float = 0.0
    """How many of them take up to ``long_delay_us_max``, and so are overtaken."""
    long_delay_us_max: int = 10_000_000
    in_order: bool = True


class SimulatedNetwork:
    """See the module's docstring."""

    def __init__(self, loop: Loop, dice: Random, weather: LinkWeather, deliver: Deliver, watcher: Watcher) -> None:
        """All links are well, but for the weather."""
        self.weather = weather
        self.cut: Links = frozenset()
        """Directed links that carry nothing."""
        self.sent = 0
        self.lost = 0
        self._loop = loop
        self._dice = dice
        self._deliver = deliver
        self._watcher = watcher
        self._last_arrival_us: dict[tuple[int, int], int] = {}
        self._calm_since_us = 0

    def calm(self) -> None:
        """Good weather from now on: what is on its way arrives soon, or not at all.

        Otherwise a leader of the past would be heard for as long as a message may be under way, ten seconds, each time
        for the first time; and nobody would be elected meanwhile.
        """
        self.weather = LinkWeather()
        self._calm_since_us = self._loop.now_us

    def send(self, sender: int, receiver: int, message: bytes, leaves_us: int) -> None:
        """A message leaves a server at a time, which may be a little ahead of the present."""
        self.sent += 1
        link = (sender, receiver)
        weather, dice = self.weather, self._dice
        if link in self.cut or (weather.loss and dice.random() < weather.loss):
            self._lose(link, message, leaves_us)
            return
        self._carry(link, message, leaves_us)
        if weather.repeats and dice.random() < weather.repeats:
            self._carry(link, message, leaves_us)

    def _carry(self, link: tuple[int, int], message: bytes, leaves_us: int) -> None:
        weather, dice = self.weather, self._dice
        arrives_us = leaves_us + int(
            weather.delay_us_min + dice.random() * (weather.delay_us_max - weather.delay_us_min)
        )
        if weather.long_delays and dice.random() < weather.long_delays:
            arrives_us += dice.randrange(weather.long_delay_us_max)
        elif weather.in_order:
            arrives_us = max(arrives_us, self._last_arrival_us.get(link, 0))
            self._last_arrival_us[link] = arrives_us
        self._loop.at(arrives_us, lambda: self._arrive(link, message, leaves_us))

    def _arrive(self, link: tuple[int, int], message: bytes, left_us: int) -> None:
        is_late = left_us < self._calm_since_us < self._loop.now_us - self.weather.delay_us_max
        if link not in self.cut and not is_late and self._deliver(link[0], link[1], message):
            self._watcher.arrived(left_us, self._loop.now_us, link[0], link[1], message)
        else:
            self._lose(link, message, left_us)

    def _lose(self, link: tuple[int, int], message: bytes, left_us: int) -> None:
        self.lost += 1
        self._watcher.lost(left_us, self._loop.now_us, link[0], link[1], message)

    def cut_exactly(self, links: Links) -> None:
        """From now on these carry nothing; what is on its way is lost as well. All others do."""
        self.cut = links
