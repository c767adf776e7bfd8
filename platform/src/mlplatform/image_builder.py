"""Whoever builds images on this machine (docker, podman or buildah), and git, which says of what. `images` says what they are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import ConfigError, Unavailable
from mlplatform.images import Recipe, Source, build_options

BUILDERS = ("docker", "podman", "buildah")
"""In the order in which they are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """One of `BUILDERS`, as a program on this machine."""

    program: str
    repository: Path

    @property
    def kind(self) -> str:
        """Which of them."""
        return Path(self.program).name

    def build(self, recipe: Recipe, name: str, source: Source, base: str = "") -> None:
        """Make an image, whose files bear the commit's time.

        Raises:
            Unavailable: the builder says no; it has said why.
        """
        options = build_options(recipe, name, source, base)
        if self.kind == "docker":
            at_once = ["buildx", "build", "--load", "--provenance=false", *options]
        else:
            at_once = ["build", f"--timestamp={source.committed}", *options]
        self._run(*at_once, ".", environment={"SOURCE_DATE_EPOCH": str(source.committed)})

    def bring_programs(self, recipe: Recipe, deployable: str) -> None:
        """Put what an image starts beside Python where its Dockerfile takes it from; what was never built here is built.

        Raises:
            ConfigError: it is neither there nor can it be built; the builder of programs has said why.
        """
        if not recipe.programs:
            return
        folder = Path(recipe.dockerfile).parent / "programs" / deployable
        command = [sys.executable, "tools/binaries.py", "--into", str(folder), *recipe.programs]
        if subprocess.run(command, cwd=self.repository, check=False).returncode:
            raise ConfigError(
                f"{' and '.join(recipe.programs)} go into the image {deployable} and are not to be had (see above). Try: make tools"
            )

    def check(self, recipe: Recipe, name: str) -> None:
        """Run the image as strictly as a cluster does.

        Raises:
            Unavailable: it did not end well.
        """
        if self.kind == "buildah":
            with self._container(name) as container:
                self._run("run", "--network=none", "--user=65532", container, "--", *self._entry_point(name), *recipe.check)
        else:
            self._run("run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", name, *recipe.check)

    def push(self, name: str) -> str:
        """Bring an image to its registry. Returns its digest there.

        Raises:
            Unavailable: the registry does not take it.
        """
        if self.kind == "docker":
            self._run("push", name)
            told = json.loads(self._run("image", "inspect", name, "--format", "{{json .RepoDigests}}", quiet=True))
            return next(str(each).partition("@")[2] for each in told if each.startswith(name.rpartition(":")[0] + "@"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "digest"
            self._run("push", f"--digestfile={file}", name)
            return file.read_text().strip()

    @contextmanager
    def _container(self, name: str) -> Iterator[str]:
        """A working container of buildah's, gone afterwards."""
        container = self._run("from", "--pull=never", name, quiet=True).strip()
        try:
            yield container
        finally:
            self._run("rm", container, quiet=True)

    def _entry_point(self, name: str) -> list[str]:
        told = json.loads(self._run("inspect", "--type=image", name, quiet=True))
        found: list[str] = told["OCIv1"]["config"]["Entrypoint"]
        return found

    def _run(self, *words: str, quiet: bool = False, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [self.program, *words],
            cwd=self.repository,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unavailable(
                f"{self.kind} {words[0]} ended with {done.returncode} (see above). Mend that, then type the same command again."
            )
        return done.stdout or ""


def builder_here(repository: Path, named: str = "") -> Builder:
    """The builder that is named, or the first of `BUILDERS` that is there.

    Raises:
        ConfigError: there is none.
    """
    for program in [named] if named else BUILDERS:
        found = shutil.which(program)
        if found and Path(found).name in BUILDERS:
            return Builder(program=found, repository=repository)
    missing = f"{named} is not one of them that is here" if named else "none is on PATH"
    raise ConfigError(
        f"Images are built by {', '.join(BUILDERS)}: {missing}. Install one, or name it: make images BUILDER=/path/to/buildah"
    )


def bill_of_materials(name: str, digest: str, file: Path) -> None:
    """Write what an image holds, as CycloneDX, by `syft`.

    Raises:
        ConfigError: syft is not there.
        Unavailable: it could not read the image.
    """
    program = shutil.which("syft")
    if program is None:
        raise ConfigError("syft, which lists what is in an image, is not on PATH. Install it, or say --without-bill.")
    file.parent.mkdir(parents=True, exist_ok=True)
    at = f"registry:{name.rpartition(':')[0]}@{digest}"
    if subprocess.run([program, "--quiet", at, "--output", f"cyclonedx-json={file}"], check=False).returncode:
        raise Unavailable(f"syft could not read {at} (see above). The image is pushed; type the same command again for its bill.")


def source_of(repository: Path) -> Source:
    """The commit in a folder.

    Raises:
        ConfigError: the folder is no repository, or has no commit.
    """
    return Source(
        described=_git(repository, "describe", "--always", "--tags", "--dirty"),
        revision=_git(repository, "rev-parse", "HEAD"),
        committed=int(_git(repository, "log", "-1", "--format=%ct")),
    )


def _git(repository: Path, *words: str) -> str:
    command: Sequence[str] = ["git", "-C", str(repository), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise ConfigError(f"Images are named by git's commit, and git says: {why}. Build in a clone of the repository.") from error
