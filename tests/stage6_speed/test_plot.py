"""The course of a measurement: its points, and the picture of them."""

from array import array
from xml.etree import ElementTree

import attrs
import pytest

from fileserver.bench.outcome import Interval, Outcome, Point
from fileserver.bench.plot import HEIGHT, LEFT, RIGHT, WIDTH, draw, linear_ticks, logarithmic_ticks

SVG = "{http://www.w3.org/2000/svg}"


def outcome_of(tenths: int, seconds: float, latency_us: int = 1000) -> Outcome:
    """So many tenths of a second, each with two writes and a read."""
    latencies = (array("L", [latency_us, latency_us]), array("L", [2 * latency_us]))
    intervals = [Interval(number * 100_000, latencies, errors=number % 2) for number in range(tenths)]
    return Outcome(seconds=seconds, intervals=intervals)


def test_points_are_tenths_of_a_second_of_a_short_measurement() -> None:
    points = outcome_of(20, 2.003).points()
    assert len(points) == 20
    assert points[3] == Point(300_000, 3, 30.0, 1000, 2000, 1)
    assert points[3].to_json() == {
        "at_s": 0.3,
        "operations": 3,
        "per_second": 30.0,
        "p50_us": 1000,
        "p99_us": 2000,
        "errors": 1,
    }
    assert points[-1].per_second == pytest.approx(3 / 0.103), "the last one has the rest"


def test_points_are_seconds_of_a_long_one() -> None:
    points = outcome_of(601, 60.04).points()
    assert [point.at_us for point in points] == [second * 1_000_000 for second in range(60)]
    assert {point.operations for point in points[:-1]} == {30}
    assert sum(point.operations for point in points) == 601 * 3


def test_points_of_nothing() -> None:
    (point,) = Outcome().points()
    assert (point.operations, point.p99_us, point.per_second) == (0, 0, 0.0)


def test_figures_by_kind() -> None:
    outcome = outcome_of(10, 1.0)
    assert {name: figures.operations for name, figures in outcome.figures_by_kind().items()} == {
        "read": 10,
        "write": 20,
    }
    assert outcome.figures().per_second == 30.0
    outcome.server_cpu_us = 300
    assert outcome.server_us_per_operation() == 10.0


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (0, [0, 1]),
        (10, [0, 2, 4, 6, 8, 10]),
        (6630, [0, 2000, 4000, 6000, 8000]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (24_999, [0, 5000, 10_000, 15_000, 20_000, 25_000]),
    ],
)
def test_linear_ticks(most: float, ticks: list[float]) -> None:
    assert linear_ticks(most) == ticks


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([], [1, 2, 5, 10]),
        ([3, 8], [1, 2, 5, 10]),
        ([10], [10, 20, 50, 100]),
        ([0], [0.001, 0.002, 0.005, 0.01]),
        ([0.2, 2000], [0.1, 1, 10, 100, 1000, 10_000]),
    ],
)
def test_logarithmic_ticks(values: list[float], ticks: list[float]) -> None:
    assert logarithmic_ticks(values) == ticks


def test_a_picture() -> None:
    title = 'a < b & "c"'
    (slow,) = outcome_of(1, 0.1, 50_000).points()
    points = [*outcome_of(4, 0.4).points(), Point(400_000, 0, 0.0, 0, 0, 2), attrs.evolve(slow, at_us=500_000)]
    page = ElementTree.fromstring(draw(points, title, "64 clients"))
    texts = [element.text for element in page.iter(f"{SVG}text")]
    assert {title, "64 clients", "operations a second", "latency, milliseconds", "time, seconds", "p99"} <= set(texts)
    throughput, *latencies = page.iter(f"{SVG}polyline")
    assert len(throughput.attrib["points"].split()) == 6
    assert len(latencies) == 4, "where nothing was answered the lines are broken"
    for line in (throughput, *latencies):
        for place in line.attrib["points"].split():
            x, y = map(float, place.split(","))
            assert LEFT <= x <= WIDTH - RIGHT
            assert 0 < y < HEIGHT
    assert len(list(page.iter(f"{SVG}circle"))) == 3, "errors are marked"


@pytest.mark.parametrize("points", [[], Outcome().points(), outcome_of(1, 0.1).points(), outcome_of(7, 0.7).points()])
def test_a_picture_of_little(points: list[Point]) -> None:
    assert ElementTree.fromstring(draw(points, "little", "")).tag == f"{SVG}svg"
