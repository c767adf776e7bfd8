"""The tour of a platform shows what its first command prints."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

import binaries
from typed_platform import ROOT, command, surroundings

TOUR = ROOT / "docs" / "tours" / "one-platform.md"
PROGRAMS = ["helm", "kubectl"]
pytestmark = [
    pytest.mark.control_plane,
    pytest.mark.skipif(not binaries.ready(PROGRAMS) and shutil.which("go") is None, reason=f"no helm: type `{binaries.COMMAND}`"),
]


def test_the_plan_that_is_shown_is_the_plan_that_is_printed() -> None:
    typed, shown = re.findall(r"^```\n(.*?)^```$", TOUR.read_text(), re.MULTILINE | re.DOTALL)[:2]
    assert typed == "make plan-platform ENV=laptop OFFLINE=1\n"
    done = subprocess.run(
        command("plan", "laptop", "--offline"), cwd=ROOT, env=surroundings(""), capture_output=True, text=True, check=True
    )
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    missing = [line for line in shown.splitlines() if line != "…" and line not in printed]
    assert missing == [], "type it again, and copy what it prints"
