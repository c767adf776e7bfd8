"""`millrace models`."""

from __future__ import annotations

from collections.abc import Sequence

from mlpipelines.commands import options, screen

_EXAMPLES = """  millrace models                       every registered model and its champion
  millrace models transactions          the versions of one, with verdict and lineage
  millrace models transactions --json"""


def main(argv: Sequence[str]) -> int:
    """List models, or the versions of one."""
    parser = options.make_parser("models", "List the registered models, or the versions of one of them.", _EXAMPLES)
    parser.add_argument("model", nargs="?", help="its versions")
    options.add_workspace(parser)
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    workspace = options.workspace_of(arguments)
    from mlpipelines.publishing import registry

    rows = registry.list_versions(workspace, arguments.model) if arguments.model else registry.list_models(workspace)
    if arguments.json:
        screen.print_json(rows)
    else:
        title = f"Versions of {arguments.model}" if arguments.model else "Models"
        screen.print_table(title, rows, empty="none yet. A run that is blessed registers one: `millrace run PROJECT_DIR`.")
    return 0
