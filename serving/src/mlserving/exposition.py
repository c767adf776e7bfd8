"""Figures that are computed when somebody asks, as Prometheus reads them: families that are declared once and always told, and a port to ask at.

The monitor and the review page tell what they found by it. The gateway counts while it works, and has metrics of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mlserving.errors import ConfigError


class Families:
    """Families of metrics by name. One that is declared is there, also without a value.

    Args:
        prefix: of every name.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._families: dict[str, tuple[GaugeMetricFamily | CounterMetricFamily, tuple[str, ...]]] = {}

    def declare(self, name: str, text: str, labels: Sequence[str]) -> None:
        """A gauge; a counter where the name ends with `_total`."""
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        self._families[name] = kind(self._prefix + name, text, labels=list(labels)), tuple(labels)

    def add(self, name: str, labels: Mapping[str, str], value: float | None) -> None:
        """A value, if there is one."""
        if value is not None:
            family, names = self._families[name]
            family.add_metric([labels[each] for each in names], float(value))

    def all(self) -> list[Metric]:
        """Every family, in the order in which they were declared."""
        return [family for family, _ in self._families.values()]


@contextlib.contextmanager
def listening(address: str | None, registry: CollectorRegistry, option: str) -> Iterator[str | None]:
    """Answer `/metrics` at HOST:PORT while the context lasts; yields where. Nothing happens without an address.

    Raises:
        ConfigError: it is no address, or taken; `option` is named.
    """
    if address is None:
        yield None
        return
    host, _, port = address.rpartition(":")
    host = host or "127.0.0.1"
    try:
        server, thread = start_http_server(int(port), host, registry)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"{option} {address}: {error}. Name a free HOST:PORT; port 0 takes one.") from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
