"""`make golden`: what each environment's cloud is made of, whole, to be read as a diff in review.

`tests/golden/gke/ENVIRONMENT.txt`, one block for each resource; in angle brackets stands what only Google knows. A test holds them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlplatform.environment import FOLDER, Environment, read_environment
from mlplatform.infrastructure import listing, resources_of

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "gke"


def environments() -> dict[str, Environment]:
    """Those with a cloud, by name."""
    found = [read_environment(file) for file in sorted((ROOT / FOLDER).glob("*.yaml"))]
    return {environment.name: environment for environment in found if environment.cloud is not None}


def main() -> int:
    """Write them all."""
    GOLDEN.mkdir(exist_ok=True)
    there = environments()
    for name, found in zip(there, resources_of(list(there.values())), strict=True):
        (GOLDEN / f"{name}.txt").write_text(listing(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
