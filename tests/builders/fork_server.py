"""Python keeps one fork server for a whole process, and so for all tests of a worker: whoever wants one starts it anew."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


def stop_fork_server() -> None:
    """End the one that an earlier test left, with what that test had it import."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no public way


def new_fork_server(*preload: str) -> ForkServerContext:
    """A context whose processes are forked from one that has imported these modules."""
    stop_fork_server()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context
