"""`millrace images`: build our images, see that they work, push them, and write their digests into an environment. `make images` calls it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.errors import ConfigError

if TYPE_CHECKING:
    from mlplatform.image_builder import Builder
    from mlplatform.images import Source
    from mlplatform.services import Deployable

REPOSITORY = Path(__file__).resolve().parents[3]
LOCAL = "localhost/millrace"
"""The registry of images that stay here."""

DESCRIPTION = """\
Build our images from this commit, each from its Dockerfile, and run each once as strictly as a cluster does: the steps' image runs a whole small pipeline.

With --push they go to the environment's registry, a bill of materials (CycloneDX, by syft) is written for each, and the digests go into the environment's
file, so that what was tested is what runs. Commit that file."""

EPILOG = """\
examples:
  millrace images                                    all of them, for this machine
  millrace images trigger steps                      these two
  millrace images --environment gke-staging --push   and platform/environments/gke-staging.yaml names them by digest

exit codes: 0 done, 2 a wrong argument or no builder, 4 the builder or the registry said no"""


def main(argv: list[str]) -> int:
    """Build, check and push images."""
    arguments = _parser().parse_args(argv)
    from mlplatform.environment import FOLDER, read_environment
    from mlplatform.image_builder import builder_here, source_of
    from mlplatform.images import reference, with_digests

    chosen = _chosen(arguments.images)
    source, builder = source_of(REPOSITORY), builder_here(REPOSITORY, arguments.builder)
    file = REPOSITORY / FOLDER / f"{arguments.environment}.yaml" if arguments.environment else None
    registry = read_environment(file).images.registry if file else LOCAL
    if arguments.push and file is None:
        raise ConfigError("--push needs to know where to: --environment NAME, a file in platform/environments.")
    if arguments.push and source.dirty:
        raise ConfigError(
            f"What is pushed must be a commit, and this folder holds more than {source.revision[:12]}. Commit or stash it: git status"
        )
    for deployable in chosen:
        _make(builder, deployable, reference(registry, deployable, source.tag), source, arguments)
    if arguments.push and file:
        digests = {deployable: _push(builder, deployable, reference(registry, deployable, source.tag), arguments) for deployable in chosen}
        file.write_text(with_digests(file.read_text(), digests, str(file)))
        print(f"{file.relative_to(REPOSITORY)} names them by digest. Read the diff and commit it: git diff {file.relative_to(REPOSITORY)}")
    return 0


def _chosen(names: list[str]) -> list[Deployable]:
    from mlplatform.services import Deployable

    unknown = sorted(set(names) - set(Deployable))
    if unknown:
        raise ConfigError(f"There is no image {', '.join(unknown)}. Images: {', '.join(Deployable)}")
    return [Deployable(name) for name in names] or list(Deployable)


def _make(builder: Builder, deployable: Deployable, name: str, source: Source, arguments: argparse.Namespace) -> None:
    from mlplatform.images import RECIPES

    recipe, began = RECIPES[deployable], time.monotonic()
    print(f"=== {name} from {recipe.dockerfile}", flush=True)
    builder.build(recipe, name, source, arguments.base)
    built = time.monotonic()
    builder.check(recipe, name)
    print(f"=== {name}: built in {built - began:.0f} s, checked in {time.monotonic() - built:.0f} s", flush=True)


def _push(builder: Builder, deployable: Deployable, name: str, arguments: argparse.Namespace) -> str:
    from mlplatform.image_builder import bill_of_materials

    digest = builder.push(name)
    if not arguments.without_bill:
        file = arguments.bills / f"{deployable}.cdx.json"
        bill_of_materials(name, digest, file)
        print(f"{file} says what is in it")
    return digest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace images", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="default: all")
    parser.add_argument("--environment", metavar="NAME", default="", help="whose registry and file; without it images are for this machine")
    parser.add_argument("--push", action="store_true", help="to the registry, and the digests into the environment's file")
    parser.add_argument("--base", metavar="IMAGE", default="", help="in place of debian:trixie-slim, best by digest")
    parser.add_argument("--builder", metavar="PROGRAM", default="", help="default: the first of docker, podman, buildah that is there")
    parser.add_argument("--bills", metavar="DIR", type=Path, default=Path(".millrace/images"), help="where bills of materials go")
    parser.add_argument("--without-bill", action="store_true", help="push without one")
    return parser
