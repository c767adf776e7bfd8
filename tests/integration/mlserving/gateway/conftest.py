"""Two model servers and a gateway in front of them, shared by the tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateways import Server, config, gateway, model_server


@dataclass(frozen=True)
class World:
    """Stable serves version 1, the canary version 2, half and half by `x-user`; the shadow version 3."""

    gateway: Server
    stable: Server
    canary: Server
    shadow: Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("gateway")
    with (
        model_server(folder / "stable", "--version", "1") as stable,
        model_server(folder / "canary", "--version", "2") as canary,
        model_server(folder / "shadow", "--version", "3") as shadow,
    ):
        settings = config(stable=(stable, 50), canary=(canary, 50), shadow=(shadow, 0), more="    sticky: x-user\nlimits: {body_mb: 12}\n")
        with gateway(folder / "gateway", settings) as front:
            yield World(front, stable, canary, shadow)
