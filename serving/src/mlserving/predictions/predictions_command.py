"""`millrace predictions forget`: erase what the log and the labels know of somebody."""

from __future__ import annotations

import argparse

from mlserving.errors import ConfigError
from mlserving.predictions.forget import forget
from mlserving.predictions.labels_command import add_folder, folder_of
from mlserving.predictions.records import FEATURE

_SHOWN = 20

_DESCRIPTION = """\
Erase predictions, and their labels, from a model's log: by the ids of the predictions, or by the value of a logged feature.

The files are written anew without those rows. What a gateway holds in its spool is not in the log yet, so type the command again
once its recorder has written it: a minute later."""

_EPILOG = """\
examples:
  millrace predictions forget --model cards --where merchant='ACME TOOLS 0042' --dry-run
  millrace predictions forget --model cards --prediction-id 0a1b2c --prediction-id 3d4e5f

exit codes: 0 done, also where nothing was found; 2 there is no such feature; 4 files are being merged: type it again"""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    erased = forget(folder_of(arguments), arguments.model, ids=arguments.prediction_id, where=arguments.where, dry_run=arguments.dry_run)
    for each in erased.prediction_ids[:_SHOWN]:
        print(each)
    if len(erased.prediction_ids) > _SHOWN:
        print(f"… and {len(erased.prediction_ids) - _SHOWN} more")
    verb = "would be erased" if arguments.dry_run else "erased"
    print(f"{erased.predictions} predictions and {erased.labels} labels of {arguments.model} {verb}, in {erased.files} files")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="millrace predictions", description="The prediction log.")
    actions = parser.add_subparsers(required=True, metavar="forget")
    forgetting = actions.add_parser(
        "forget", help="erase rows", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    forgetting.add_argument("--model", required=True, metavar="M", help="the model that predicted")
    which = forgetting.add_mutually_exclusive_group(required=True)
    which.add_argument("--prediction-id", action="append", default=[], metavar="ID", help="this prediction; may be given several times")
    which.add_argument("--where", type=_condition, metavar="FEATURE=VALUE", help="predictions of which a logged feature has this value")
    forgetting.add_argument("--dry-run", action="store_true", help="only show what would be erased")
    add_folder(forgetting)
    return parser


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is not FEATURE=VALUE. Write for example --where merchant='ACME TOOLS 0042'")
    return (name if name.startswith(FEATURE) else f"{FEATURE}{name}"), value
