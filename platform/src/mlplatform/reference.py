"""This package's generated pages of the documentation: `make generate` writes them, `make verify` holds them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from mlplatform.environment import FOLDER, Environment, environment_schema
from mlserving.field_tables import GENERATED, tables, write_pages


def environment_page() -> str:
    """Every field of an environment file."""
    lines = [
        "# An environment",
        "",
        GENERATED.format("`mlplatform/environment.py`, `cloud.py`, `teams.py` and `services.py`"),
        "",
        f"`{FOLDER}/NAME.yaml` holds every decision about one platform ([how it is used](../platform.md)). Fields without a default must be given.",
        "",
        *tables(Environment),
    ]
    return "\n".join(lines).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {"environment.md": environment_page, "environment.schema.json": environment_schema}


if __name__ == "__main__":
    sys.exit(write_pages(PAGES, Path(sys.argv[1])))
