"""This package's generated pages of the documentation: `make generate` writes them, `make verify` holds them.

Text from our own definitions: the settings' docstrings and the metrics' contract. Nothing is said twice by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from mlserving.field_tables import GENERATED, tables, write_pages
from mlserving.gateway import metrics, settings


def gateway_page() -> str:
    """Every field of gateway.yaml and every metric of the gateway."""
    lines = [
        "# The gateway",
        "",
        GENERATED.format("`mlserving/gateway/settings.py` and `metrics.py`"),
        "",
        "`millrace gateway --config gateway.yaml` stands in front of a model's tracks ([decision 11](../decisions/0011-the-gateway-relays-frames.md)).",
        "",
        "# gateway.yaml",
        "",
        "Fields without a default must be given.",
        "",
        *tables(settings.GatewaySettings),
    ]
    lines += ["# Metrics", "", "On the admin port, `GET /metrics`, in Prometheus' text format; those of the recorder follow there.", ""]
    lines += ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for each in metrics.CONTRACT:
        labels = ", ".join(f"`{label}`" for label in each.labels) or "—"
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {each.help} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"gateway.md": gateway_page}


if __name__ == "__main__":
    sys.exit(write_pages(PAGES, Path(sys.argv[1])))
