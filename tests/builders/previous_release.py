"""The platform's release before this one, by its own code: `tools/freeze_release.py` keeps it in tests/releases/."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from control_plane import ControlPlane
from typed_platform import ROOT, surroundings

VERSION = "0.2.0"
ARCHIVE = ROOT / "tests" / "releases" / f"platform-{VERSION}.tar.xz"


@dataclass(frozen=True)
class PreviousRelease:
    """Its repository, or what of it deploys a platform, in a folder."""

    root: Path

    @classmethod
    def unpacked(cls, folder: Path) -> PreviousRelease:
        """From the archive."""
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        return cls(folder)

    def environment(self, name: str) -> str:
        """An environment file as it was."""
        return (self.root / "platform" / "environments" / f"{name}.yaml").read_text()

    def typed(self, plane: ControlPlane, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`millrace platform …` as somebody typed it who had that repository; the libraries are ours."""
        sources = [str(self.root / package / "src") for package in ("platform", "serving", "gpu-queue")]
        return subprocess.run(
            [sys.executable, "-m", "mlplatform", "platform", *arguments],
            cwd=self.root,
            env=surroundings(plane.kubeconfig) | {"PYTHONPATH": os.pathsep.join(sources)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
