"""What `millrace images` does: wiring, and what is printed. `images_command` reads the options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from mlplatform.environment import FOLDER, read_environment
from mlplatform.errors import ConfigError
from mlplatform.image_builder import Builder, bill_of_materials, builder_here, source_of
from mlplatform.images import RECIPES, Source, reference, with_digests
from mlplatform.services import Deployable, deployables
from mlserving.workspace import write_whole

REPOSITORY = Path(__file__).resolve().parents[3]
LOCAL = "localhost/millrace"
"""The registry of images that stay here."""


def make(arguments: argparse.Namespace) -> int:
    """Build, check and push images.

    Raises:
        ConfigError: a name, the builder or the environment is wrong, or what would be pushed is no commit.
        Unavailable: the builder or the registry said no.
    """
    chosen = _chosen(arguments.images)
    source, builder = source_of(REPOSITORY), builder_here(REPOSITORY, arguments.builder)
    file = REPOSITORY / FOLDER / f"{arguments.environment}.yaml" if arguments.environment else None
    environment = read_environment(file) if file else None
    registry = environment.images.registry if environment else LOCAL
    usual = environment.deployables() if environment else deployables(gpus=False)
    if arguments.push and file is None:
        raise ConfigError("--push needs to know where to: --environment NAME, a file in platform/environments.")
    if arguments.push and source.dirty:
        raise ConfigError(
            f"What is pushed must be a commit, and this folder holds more than {source.revision[:12]}. Commit or stash it: git status"
        )
    names = {deployable: reference(registry, deployable, source.tag) for deployable in chosen or usual}
    for deployable, name in names.items():
        _build(builder, deployable, name, source, arguments.base)
    if arguments.push and file:
        digests = {deployable: _push(builder, deployable, name, arguments) for deployable, name in names.items()}
        write_whole(file, with_digests(file.read_text(), digests, str(file)))
        print(f"{file.relative_to(REPOSITORY)} names them by digest. Read the diff and commit it: git diff {file.relative_to(REPOSITORY)}")
    return 0


def _chosen(names: Sequence[str]) -> list[Deployable]:
    unknown = sorted(set(names) - set(Deployable))
    if unknown:
        raise ConfigError(f"There is no image {', '.join(unknown)}. Images: {', '.join(Deployable)}")
    return [Deployable(name) for name in names]


def _build(builder: Builder, deployable: Deployable, name: str, source: Source, base: str) -> None:
    recipe, began = RECIPES[deployable], time.monotonic()
    print(f"=== {name} from {recipe.dockerfile}", flush=True)
    builder.bring_programs(recipe, deployable)
    builder.build(recipe, name, source, base)
    built = time.monotonic()
    builder.check(recipe, name)
    print(f"=== {name}: built in {built - began:.0f} s, checked in {time.monotonic() - built:.0f} s", flush=True)


def _push(builder: Builder, deployable: Deployable, name: str, arguments: argparse.Namespace) -> str:
    digest = builder.push(name)
    if not arguments.without_bill:
        file = arguments.bills / f"{deployable}.cdx.json"
        bill_of_materials(name, digest, file)
        print(f"{file} says what is in it")
    return digest
