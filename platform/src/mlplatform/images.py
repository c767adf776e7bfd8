"""Our images: from which file each is built, what it is called, and what a builder is told. `image_builder` tells it.

Pure: texts in, texts out. An image is named by the commit that it was made from, and known by its digest from then on.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ruamel.yaml import YAML

from mlplatform.errors import ConfigError
from mlplatform.services import Deployable

SMALL_RUN = (
    *("run", "/projects/transactions", "--workspace=/tmp/millrace", "--accept-schema"),
    *("--set=source.options.rows=6000", "--set=training.epochs=1", "--set=evaluation.baseline.kind=majority", "--set=evaluation.baseline.column="),
)  # fmt: skip
"""A whole pipeline on a few generated rows, on processors: everything that steps import is used once. How good the model is does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one image is made, and how it shows that it works."""

    dockerfile: str
    """In the repository, whose root is the context."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Build arguments."""
    programs: tuple[str, ...] = ()
    """What it starts beside Python: of tools/binaries.py, built from the same pins as the programs that tests run with."""
    check: tuple[str, ...] = ("--help",)
    """Arguments with which the image must end well, without a network and with nothing to write to but /tmp."""


RECIPES: Mapping[Deployable, Recipe] = {
    Deployable.GPU_QUEUE: Recipe(dockerfile="gpu-queue/Dockerfile"),
    Deployable.SERVING: Recipe(dockerfile="serving/Dockerfile"),
    Deployable.MODEL_SERVER: Recipe(dockerfile="serving/Dockerfile", arguments={"LIBRARIES": "serving"}),
    Deployable.TRIGGER: Recipe(dockerfile="pipelines/Dockerfile", programs=("helm", "kubectl")),
    Deployable.STEPS: Recipe(dockerfile="pipelines/Dockerfile", arguments={"LIBRARIES": "steps"}, check=SMALL_RUN),
    Deployable.STEPS_GPU: Recipe(dockerfile="pipelines/Dockerfile", arguments={"LIBRARIES": "steps-gpu"}, check=SMALL_RUN),
    Deployable.MLFLOW: Recipe(dockerfile="platform/mlflow/Dockerfile"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The commit that images are made from."""

    described: str
    """As `git describe --always --tags --dirty` says it."""
    revision: str
    """Forty hex digits."""
    committed: int
    """Seconds since 1970: the time that everything in an image bears, so that the same commit gives the same image."""

    @property
    def tag(self) -> str:
        """What an image's tag may hold of it."""
        return re.sub(r"[^A-Za-z0-9_.-]", "-", self.described)[:128]

    @property
    def dirty(self) -> bool:
        """Whether there is more in the folder than in the commit."""
        return self.described.endswith("-dirty")


def reference(registry: str, deployable: Deployable, tag: str) -> str:
    """An image's name: REGISTRY/DEPLOYABLE:TAG."""
    return f"{registry}/{deployable}:{tag}"


def build_options(recipe: Recipe, name: str, source: Source, base: str = "") -> list[str]:
    """What docker, podman and buildah understand alike, after their `build`.

    Args:
        recipe: of the image.
        name: what it will be called.
        source: the commit.
        base: the image that it stands on, where the file's own will not do.
    """
    arguments = {**recipe.arguments, **({"BASE": base} if base else {})}
    return [
        f"--file={recipe.dockerfile}",
        f"--tag={name}",
        f"--label=org.opencontainers.image.revision={source.revision}",
        f"--label=org.opencontainers.image.version={source.tag}",
        *(f"--build-arg={key}={value}" for key, value in arguments.items()),
    ]


def with_digests(text: str, digests: Mapping[Deployable, str], where: str) -> str:
    """An environment file's text with `images.digests` of these; everything else, comments too, stays as it was written.

    Raises:
        ConfigError: the text is no environment's.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    found = yaml.load(text)
    if not isinstance(found, dict) or not isinstance(found.get("images"), dict):
        raise ConfigError(f"{where}: images: there is no such section to write digests into")
    found["images"].setdefault("digests", {}).update({str(deployable): digest for deployable, digest in digests.items()})
    written = io.StringIO()
    yaml.dump(found, written)
    return written.getvalue()
