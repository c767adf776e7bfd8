"""`millrace schema`."""

from __future__ import annotations

from collections.abc import Sequence

from mlpipelines.commands import options, screen

_EXAMPLES = """  millrace schema show pipelines/projects/transactions      the reviewed schema
  millrace schema diff my-project                           what the proposal, or newer data, would change
  millrace schema accept my-project                         make the proposal the reviewed schema"""


def main(argv: Sequence[str]) -> int:
    """Show, compare or accept a schema."""
    parser = options.make_parser(
        "schema",
        "The reviewed schema says what the rows of a project must look like. `show` prints it, `diff` holds it against the schema that the\n"
        "last run's data would propose, `accept` writes that proposal to the project folder, where it is reviewed as code.",
        _EXAMPLES,
    )
    parser.add_argument("action", choices=["show", "diff", "accept"])
    options.add_project(parser)
    options.add_workspace(parser)
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    from mlpipelines.validation import schemas

    project, folder = options.project_of(arguments), arguments.project_dir
    state = options.workspace_of(arguments).project(project.name)
    if arguments.action == "accept":
        file = schemas.accept_schema(project, folder, state)
        screen.console().print(f"Accepted: {file}. Read it, commit it, and run `millrace run {folder}`.", soft_wrap=True)
        return 0
    reviewed_file, title = folder / project.schema_file, f"Schema of {project.name}"
    if not reviewed_file.exists() and state.proposed_schema.exists():
        reviewed_file, title = state.proposed_schema, f"Proposed schema of {project.name}, not accepted yet"
    reviewed = schemas.load_schema(reviewed_file)
    if arguments.action == "show":
        rows = schemas.describe_schema(reviewed)
    else:  # a proposal is there only while the last run's rows did not fit
        title = "The proposal would change"
        rows = schemas.diff_schemas(reviewed, schemas.load_schema(state.proposed_schema)) if state.proposed_schema.exists() else []
    if arguments.json:
        screen.print_json(rows)
    else:
        screen.print_table(title, rows, empty="nothing differs")
    return 0
