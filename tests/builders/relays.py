"""What listens on loopback here, made reachable for others: pods of a cluster, for example, that reach this machine by some address of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def relayed(address: str, port: int) -> Iterator[int]:
    """A free port of `address`, of which every connection goes on to `port` on loopback."""
    with socket.create_server((address, 0)) as listening:
        threading.Thread(target=_accept, args=(listening, port), daemon=True).start()
        yield listening.getsockname()[1]


def _accept(listening: socket.socket, port: int) -> None:
    with contextlib.suppress(OSError):  # closed: the context has ended
        while True:
            caller, _ = listening.accept()
            try:
                server = socket.create_connection(("127.0.0.1", port), timeout=10)
            except OSError:
                caller.close()
                continue
            server.settimeout(None)
            for source, target in ((caller, server), (server, caller)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    with contextlib.suppress(OSError):  # half closed, as the sender has done
        target.shutdown(socket.SHUT_WR)
