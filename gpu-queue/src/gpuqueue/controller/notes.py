"""What each pod could be told now; whether that is worth a write is `telling`'s to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gpuqueue import words
from gpuqueue.cluster import pods
from gpuqueue.cluster.board import Board
from gpuqueue.cluster.view import View
from gpuqueue.telling import Note


def notes_of(board: Board, view: View, refusal: Callable[[str], str]) -> Iterator[Note]:
    """What each pod could be told."""
    waiting, granted = board.by_pod, board.grants
    for pod in view.pods.values():
        if pod.phase == "ended":
            continue
        if (line := waiting.get(pod.uid)) is not None:
            yield _note(pod, board.message(line), admitted=False)
        elif pod.phase == "open" and (held := granted.get(pod.uid)) is not None:
            yield _note(pod, words.started(held[1], held[1].at - pod.since), admitted=True)
        elif pod.phase == "gated" and pod.namespace not in view.namespaces:
            yield _note(pod, words.no_queue(pod.namespace), admitted=False)
        elif pod.phase == "gated" and (refused := refusal(pod.uid)):
            yield _note(pod, words.unopened(refused), admitted=False)


def _note(pod: pods.Facts, text: str, *, admitted: bool) -> Note:
    return Note(
        uid=pod.uid,
        namespace=pod.namespace,
        name=pod.name,
        admitted=admitted,
        message=text,
        last=pod.told.message if pod.told else None,
        last_admitted=pod.told is not None and pod.told.status == "True",
        running=pod.running,
    )
