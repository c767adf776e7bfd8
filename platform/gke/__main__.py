"""What `pulumi preview` and `pulumi up` run: the environment that the stack is named after, and everything that follows from it."""

from __future__ import annotations

from pathlib import Path

import pulumi

from millrace_gke.program import build
from mlplatform.environment import read_environment

ENVIRONMENTS = Path(__file__).resolve().parents[1] / "environments"

for name, value in build(read_environment(ENVIRONMENTS / f"{pulumi.get_stack()}.yaml")).items():
    pulumi.export(name, value)
