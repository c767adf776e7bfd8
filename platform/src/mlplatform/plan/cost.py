"""What a platform costs in a month by the environment's own prices: with every pool at its least, and at its most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlplatform.cloud import Capacity, NodePool
from mlplatform.environment import Environment
from mlplatform.services import Prices

HOURS = 730
"""In a month, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that costs."""

    what: str
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of a month. What has no price is named, never counted as free."""

    currency: str
    as_of: str
    lines: tuple[Line, ...]
    unpriced: tuple[str, ...]

    @property
    def least(self) -> float:
        """With every pool at its least."""
        return sum(line.least for line in self.lines)

    @property
    def most(self) -> float:
        """With every node there all month."""
        return sum(line.most for line in self.lines)


def estimate(environment: Environment) -> Estimate | None:
    """None where nothing is bought: the cluster is there already."""
    if environment.cloud is None:
        return None
    found = list(_priced(environment))
    return Estimate(
        currency=environment.prices.currency,
        as_of=environment.prices.as_of,
        lines=tuple(line for line in found if isinstance(line, Line)),
        unpriced=tuple(line for line in found if isinstance(line, str)),
    )


def _priced(environment: Environment) -> Iterator[Line | str]:
    prices = environment.prices
    yield _line("control plane", prices.cluster_month, 1, 1)
    for name, pool in environment.node_pools.items():
        yield _pool(name, pool, prices)
    if environment.database.kind == "cloud-sql":
        databases = 2 * (2 if environment.database.high_availability else 1)
        yield _line("databases, MySQL and PostgreSQL", prices.database_month, databases, databases)
    yield "buckets, traffic, logs and images: by use"


def _line(what: str, price: float, least: float, most: float) -> Line | str:
    return Line(what=what, least=price * least, most=price * most) if price else f"{what}: no price"


def _pool(name: str, pool: NodePool, prices: Prices) -> Line | str:
    hour = prices.machine_hour.get(pool.machine)
    if hour is None:
        return f"pool {name}: no price for {pool.machine}"
    if pool.gpu is not None and pool.machine.startswith("n1-"):
        extra = prices.gpu_hour.get(pool.gpu.type)
        if extra is None:
            return f"pool {name}: no price for {pool.gpu.type}"
        hour += extra * pool.gpu.count
    if pool.capacity != Capacity.ON_DEMAND:
        share = {str(way): part for way, part in prices.share.items()}.get(pool.capacity.value)
        if share is None:
            return f"pool {name}: no price for {pool.capacity}"
        hour *= share
    node = hour * HOURS + prices.disk_gb_month * pool.disk_gb
    # What is reserved is paid whether it runs or not.
    least = pool.max if pool.capacity == Capacity.RESERVATION else pool.min
    return Line(what=f"pool {name}: {least} to {pool.max} × {pool.machine}, {pool.capacity}", least=node * least, most=node * pool.max)
