"""Releases of the platform: which one a repository is, which one a cluster is at, and which ways there are from one to another.

Pure: what the repository says (`platform/release.yaml`) and what the cluster has noted (`deploy.ground`) go in, a way or a refusal comes out.
Whatever is refused here is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from mlplatform.errors import ConfigError
from mlserving.settings_file import SettingsFile, Strict

FILE = Path("platform/release.yaml")
"""In the repository."""
UNRECORDED = "0.2.0"
"""The one release that noted nothing in the cluster: where a platform is and no note, it is of this one."""

Number = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]


class PlatformRelease(Strict):
    """One release."""

    version: Number
    """Also of every chart in helm/, of the images that charts name by default, and the git tag."""
    upgrades_from: Number
    """The oldest release from which a cluster gets here in one go."""
    back_to: Number
    """The oldest release to which a cluster can go back from here."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if ordered(self.upgrades_from) > ordered(self.version) or ordered(self.back_to) > ordered(self.version):
            raise ValueError("'upgrades_from' and 'back_to' are not after 'version'")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Which release a cluster is at. Of an empty one nothing is said."""

    version: str = ""
    """Empty where none was ever deployed to its end."""
    next: str = ""
    """The release to which it is under way; empty if it is not."""
    since: str = ""
    """When that began, or else when the release was complete; empty where nobody noted it."""
    back_to: str = ""
    """The oldest release to which it can go back."""
    left: tuple[str, ...] = ()
    """Steps that are there of an older release, because an upgrade was told to leave them alone."""

    @property
    def nothing(self) -> bool:
        """Whether no platform is there."""
        return not (self.version or self.next)

    @property
    def furthest(self) -> str:
        """The newer one of the release that it is at and the one to which it is under way."""
        return max(self.version, self.next, key=lambda version: ordered(version or "0"))

    def texts(self) -> dict[str, str]:
        """Each field as a text, for keeping."""
        return asdict(self) | {"left": " ".join(self.left)}

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> Self:
        """The inverse of `texts`."""
        left = tuple(texts["left"].split())
        return cls(version=texts["version"], next=texts["next"], since=texts["since"], back_to=texts["back_to"], left=left)

    def __str__(self) -> str:
        """In a few words."""
        if self.nothing:
            return "nothing is deployed"
        but = f", but for {', '.join(self.left)}" if self.left else ""
        if self.next:
            return f"{self.version or 'nothing'}, under way to {self.next} since {self.since}{but}"
        return f"{self.version}{f' since {self.since}' if self.since else ''}{but}"


class Way(StrEnum):
    """What a deployment is."""

    INSTALL = "installation"
    SAME = "deployment of the same release"
    UPGRADE = "upgrade"
    BACK = "way back"


def read_release(root: Path) -> PlatformRelease:
    """The release that a repository is.

    Raises:
        ConfigError: the file is missing, or a field is wrong.
    """
    return RELEASES.read(root / FILE)


def ordered(version: str) -> tuple[int, ...]:
    """A version as something that can be compared."""
    return tuple(map(int, version.split(".")))


def way(ours: PlatformRelease, there: Standing, *, back: bool = False) -> Way:
    """What deploying the repository's release to a cluster is. `back`: it is meant to go to an older one.

    Raises:
        ConfigError: there is no such way. The text says which one there is.
    """
    if there.next and ours.version not in {there.next, there.version}:
        raise ConfigError(
            f"This cluster is under way from {there.version or 'nothing'} to {there.next} since {there.since}, and this repository is {ours.version}. "
            f"Finish that first: git checkout {there.next}, and the same command there."
        )
    if not there.version:
        return Way.INSTALL
    if ordered(ours.version) < ordered(there.furthest):
        return _back(ours, there, meant=back or there.next == ours.version)
    if back:
        raise ConfigError(f"--back: this cluster is at {there}, and this repository, {ours.version}, is not older. Go on without --back.")
    return Way.SAME if ours.version == there.version else _upgrade(ours, there)


def under_way(ours: PlatformRelease, there: Standing, now: str) -> Standing:
    """What is noted before the first step: killed from here on, the cluster says where it is. `now` is the time, as it is to be read."""
    if there.next == ours.version:
        return there
    if not there.version or ordered(ours.version) >= ordered(there.furthest):
        return Standing(version=there.version, next=ours.version, since=now, back_to=ours.back_to, left=there.left)
    return Standing(version=there.furthest, next=ours.version, since=now, back_to=there.back_to, left=there.left)


def arrived(ours: PlatformRelease, there: Standing, now: str, left: tuple[str, ...]) -> Standing:
    """What is noted when every step is ready; nothing new where the cluster was there already."""
    since = there.since if there.version == ours.version and not there.next else now
    return Standing(version=ours.version, since=since, back_to=ours.back_to, left=left)


def require_pinned(pinned: str | None, ours: PlatformRelease, where: str) -> None:
    """That an environment, which may name the release that it is to be at, names this one.

    Raises:
        ConfigError: it names another.
    """
    if pinned not in (None, ours.version):
        raise ConfigError(
            f"{where}: versions.millrace: is {pinned}, and this repository is {ours.version}. To upgrade, write {ours.version} there after reading "
            f"CHANGELOG.md, and look: millrace platform plan. To stay: git checkout {pinned}"
        )


def _upgrade(ours: PlatformRelease, there: Standing) -> Way:
    if ordered(there.version) < ordered(ours.upgrades_from):
        raise ConfigError(
            f"This cluster is at {there.version}, and {ours.version} upgrades from {ours.upgrades_from} on: what lies between does work that {ours.version} "
            f"relies on. Deploy {ours.upgrades_from} first: git checkout {ours.upgrades_from}, and the same command there."
        )
    if there.left and there.next != ours.version:
        raise ConfigError(
            f"This cluster is at {there.version}, but for {', '.join(there.left)}, which an upgrade left alone: two releases at once would be skipped. "
            f"Deploy {there.version} without --without first: git checkout {there.version}, and the same command there."
        )
    return Way.UPGRADE


def _back(ours: PlatformRelease, there: Standing, *, meant: bool) -> Way:
    furthest = there.furthest
    if not meant:
        raise ConfigError(
            f"This cluster is at {furthest}, and this repository is older: {ours.version}. To stay: git checkout {furthest}. "
            f"To go back on purpose, after docs/platform.md: millrace platform deploy ENVIRONMENT --back"
        )
    if there.back_to and ordered(ours.version) < ordered(there.back_to):
        raise ConfigError(
            f"From {furthest} the way back ends at {there.back_to}, and this repository is {ours.version}, which cannot read what {furthest} has written. "
            "What is left are backups: docs/platform.md."
        )
    return Way.BACK


RELEASES = SettingsFile(PlatformRelease, page="docs/platform.md", remedy="Is this the repository? Name it with --root.")
