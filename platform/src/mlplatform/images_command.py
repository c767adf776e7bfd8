"""`millrace images`: build our images, see that they work, push them, and write their digests into an environment. `make images` calls it; `image_making` does it."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    from mlplatform.image_making import make

    return make(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace images", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="default: all that the environment uses; without one, all but steps-gpu")
    parser.add_argument("--environment", metavar="NAME", default="", help="whose registry and file; without it images are for this machine")
    parser.add_argument("--push", action="store_true", help="to the registry, and the digests into the environment's file")
    parser.add_argument("--base", metavar="IMAGE", default="", help="in place of debian:trixie-slim, best by digest")
    parser.add_argument("--builder", metavar="PROGRAM", default="", help="default: the first of docker, podman, buildah that is there")
    parser.add_argument("--bills", metavar="DIR", type=Path, default=Path(".millrace/images"), help="where bills of materials go")
    parser.add_argument("--without-bill", action="store_true", help="push without one")
    return parser
