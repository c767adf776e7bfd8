"""GPU-hours read back from the controller's counters, as a real Prometheus kept them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from gpuqueue.accounts import Account, bill
from gpuqueue.prometheus import Prometheus, Source
from gpuqueue.usage import LaneKey
from prometheus_server import PrometheusServer, Series

pytestmark = pytest.mark.prometheus

NOON = 1_793_620_800.0
HOUR = 3600.0


def counter(name: str, instance: str, queue: str, *, first: int, last: int, rate: float) -> Series:
    """From `first` to `last` minutes before noon, `rate` GPU-seconds a second, from nothing."""
    labels = {"queue": queue, "lane": "l4", "instance": instance}
    return Series(
        name=f"gpuqueue_{name}_gpu_seconds_total",
        labels=labels,
        values={NOON - 60 * ago: rate * 60 * (first - ago) for ago in range(first, last - 1, -1)},
    )


HISTORY = [
    counter("held", "a", "fraud", first=180, last=90, rate=8.0),  # this replica led, and was replaced in the middle
    counter("held", "b", "fraud", first=90, last=0, rate=8.0),
    counter("used", "a", "fraud", first=180, last=90, rate=2.0),
    counter("used", "b", "fraud", first=90, last=0, rate=2.0),
    counter("unknown", "b", "fraud", first=90, last=0, rate=1.0),
    counter("held", "b", "ads", first=180, last=0, rate=1.0),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), HISTORY) as running:
        yield running


def ask(server: PrometheusServer, hours: float) -> dict[LaneKey, Account]:
    async def asked() -> dict[LaneKey, Account]:
        async with aiohttp.ClientSession() as session:
            return await Prometheus(session, Source(url=server.url)).accounts(hours * HOUR, NOON)

    return asyncio.run(asked())


def test_what_was_held_is_added_up_over_a_change_of_leader(server: PrometheusServer) -> None:
    found = ask(server, 3)["fraud", "l4"]
    assert found.held == pytest.approx(8 * 3 * HOUR, rel=0.02)
    assert found.used == pytest.approx(2 * 3 * HOUR, rel=0.02)
    assert found.unknown == pytest.approx(1.5 * HOUR, rel=0.02)
    assert found.idle == pytest.approx(found.held - found.used - found.unknown)


def test_a_shorter_period_holds_less(server: PrometheusServer) -> None:
    assert ask(server, 1)["fraud", "l4"].held == pytest.approx(8 * HOUR, rel=0.02)


def test_a_lane_whose_use_nobody_counted_was_held_and_is_not_called_idle(server: PrometheusServer) -> None:
    accounts = ask(server, 1)
    assert (accounts["ads", "l4"].used, accounts["ads", "l4"].idle) == (0, 0)
    assert bill(accounts, {"l4": 0.5})["ads"].cost == pytest.approx(0.5, rel=0.02)
