"""`millrace platform`: plan, deploy, status and destroy. The make targets call it; `platform_verbs` does it."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(argv: list[str]) -> int:
    """Plan, deploy, look at or destroy what an environment file says"""
    options = _parser().parse_args(argv)
    from mlplatform import platform_verbs

    code: int = getattr(platform_verbs, options.verb)(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace platform", description="What an environment file says, put into a cluster and kept there."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, run, text in (
        ("plan", "show_plan", "print what would be done, against what is there, and what it costs"),
        ("deploy", "deploy", "do it, and wait until everything is ready; again after any failure"),
        ("status", "status", "say what is unhealthy, and why"),
        ("destroy", "destroy", "name what would go, ask for the environment's name, and remove it"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("environment", help="its name (a file in platform/environments) or its file")
        verb.add_argument("--root", type=Path, default=Path(), help="the repository, with helm/ and k8s/ (default: here)")
        verb.add_argument("--context", default="", help="of the kubeconfig (default: the environment's GKE cluster, or the current one)")
        verb.add_argument("--without", action="append", default=[], metavar="STEP", help="leave a step alone; may be repeated")
        verb.set_defaults(verb=run)
        if name != "destroy":
            verb.add_argument("--registry", default="", metavar="URL", help="where the registry is reached from here (default: by kubectl's port-forward)")  # fmt: skip
        if name in {"plan", "deploy"}:
            verb.add_argument("--back", action="store_true", help="this repository is an older release than the cluster, and that is meant: docs/platform.md, Going back")  # fmt: skip
        if name == "deploy":
            verb.add_argument("--take-over", type=float, default=120, metavar="SECONDS", help="after so long, an operation of helm that has not ended is nobody's any more (default: %(default)s)")  # fmt: skip
            verb.add_argument("--remove-orphans", action="store_true", help="uninstall releases of teams and models that the environment has no more; volumes stay")  # fmt: skip
        if name == "plan":
            verb.add_argument("--json", action="store_true", help="for machines")
            verb.add_argument("--offline", action="store_true", help="neither a cluster nor the network is asked")
            verb.add_argument("--diff", action="store_true", help="line by line")
    return parser
