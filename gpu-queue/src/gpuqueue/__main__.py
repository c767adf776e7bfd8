"""`python -m gpuqueue`: what the image runs. `controller` is the controller; anything else is `gpuq`.

The controller's libraries are not those of the command, so each is imported only when it is wanted.
"""

import sys


def main(arguments: list[str]) -> int:
    """Run what is asked for; returns the exit code."""
    if arguments[:1] == ["controller"]:
        from gpuqueue.controller import main as controller

        return controller.main(controller.parse(arguments[1:]))
    from gpuqueue.commands import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
