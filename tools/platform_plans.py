"""`make golden`: the whole plan of each environment, values and all, to be read as a diff in review. A test holds them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from mlplatform.environment import FOLDER, read_environment
from mlplatform.plan.order import plan

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "mlplatform"
ENVIRONMENTS = {file.stem: file for file in sorted((ROOT / FOLDER).glob("*.yaml"))}


def written(name: str) -> str:
    """The plan of that environment as YAML."""
    return "".join(
        f"---\n{yaml.dump({**asdict(step), 'kind': type(step.source).__name__}, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=140)}"
        for step in plan(read_environment(ENVIRONMENTS[name]))
    )


class _Plain(yaml.SafeDumper):
    """Tuples as lists, and nothing by reference: the same text twice is easier to read."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        del data
        return True


_Plain.add_representer(tuple, lambda dumper, data: dumper.represent_list(list(data)))


def main() -> int:
    """Write them all."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in ENVIRONMENTS:
        (GOLDEN / f"{name}.yaml").write_text(written(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
