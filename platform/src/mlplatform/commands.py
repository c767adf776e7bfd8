"""`millrace platform`: plan, deploy, status and destroy. What each does stands in the modules that it calls; here are only options."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mlplatform.environment import FOLDER, Environment, read_environment
from mlplatform.errors import ConfigError
from mlplatform.plan.order import plan
from mlplatform.plan.report import as_json, report


def platform(argv: list[str]) -> int:
    """Plan, deploy, look at and destroy a platform: `millrace platform plan laptop`"""
    options = _parser().parse_args(argv)
    run: int = options.run(options)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace platform", description="What an environment file says, put into a cluster and kept there."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, run, text in (("plan", _plan, "print what would be done, and what it costs"),):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("environment", help=f"its name (a file in {FOLDER}) or its file")
        verb.add_argument("--root", type=Path, default=Path(), help="the repository, with helm/ and k8s/ (default: here)")
        verb.add_argument("--json", action="store_true", help="for machines")
        verb.set_defaults(run=run)
        if name == "plan":
            verb.add_argument("--offline", action="store_true", help="neither a cluster nor the network is asked")
    return parser


def _environment(options: argparse.Namespace) -> Environment:
    given = Path(options.environment)
    file = given if given.suffix == ".yaml" else options.root / FOLDER / f"{given}.yaml"
    if not (options.root / "helm").is_dir():
        raise ConfigError(f"{options.root.resolve()} holds no helm/: go to the repository, or name it with --root")
    return read_environment(file)


def _plan(options: argparse.Namespace) -> int:
    from mlplatform.cluster.rendering import Renderer, rendered

    environment = _environment(options)
    renderer = Renderer(root=options.root, kubernetes=environment.versions.kubernetes, offline=options.offline)
    found = report(environment, list(rendered(renderer, plan(environment))))
    if options.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        from mlplatform.screen import console, plan_page

        console().print(plan_page(found))
    return 0
