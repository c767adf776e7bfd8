"""`python -m mlplatform.infrastructure WORD ENV`: the Google Cloud side of one platform, by itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mlplatform.environment import FOLDER, Environment, read_environment
from mlplatform.errors import PlatformError
from mlplatform.infrastructure import Resource, by_hand, listing, program, refuse, resources
from mlplatform.infrastructure.program import Verb

WORDS: dict[str, tuple[str, Callable[[Environment], None]]] = {
    "show": ("what would be made, without Google", lambda environment: print(listing(_checked(environment)), end="")),
    "bootstrap": ("what a person types before the first run", lambda environment: print("\n".join(by_hand.bootstrap(environment)))),
    "secrets": (
        "what a person types to put values into the empty secrets",
        lambda environment: print("\n".join(by_hand.secrets(environment))),
    ),
    "preview": ("what would change", lambda environment: _ask(environment, Verb.PREVIEW)),
    "up": ("make it so", lambda environment: _ask(environment, Verb.UP)),
    "drift": ("what is otherwise in Google; fails if anything is", lambda environment: _ask(environment, Verb.DRIFT)),
    "outputs": ("addresses, names and the DNS record, as JSON", lambda environment: _ask(environment, Verb.OUTPUTS)),
}


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mlplatform.infrastructure",
        description="The Google Cloud side of one platform.",
        epilog="\n".join(f"  {word:<10} {meaning}" for word, (meaning, _) in WORDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("word", choices=WORDS, metavar="WORD")
    parser.add_argument("environment", metavar="ENV", help=f"a name in {FOLDER}")
    asked = parser.parse_args(argv)
    try:
        WORDS[asked.word][1](read_environment(FOLDER / f"{asked.environment}.yaml"))
    except PlatformError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _ask(environment: Environment, verb: Verb) -> None:
    if verb in {Verb.PREVIEW, Verb.UP}:
        _checked(environment)
    program.run(environment, verb)


def _checked(environment: Environment) -> tuple[Resource, ...]:
    found = resources(environment)
    refuse(found, environment.stage)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
