"""Clients of the gateway that write bytes and frames by hand, and read when they are told to."""

from __future__ import annotations

import contextlib
import socket
from typing import Self

from gateways import PREDICT
from mlserving.gateway import frames as f


class Client:
    """A socket that reads no faster than it is told to. `small` leaves the kernel little room for what is not read."""

    def __init__(self, address: str, *, small: bool = False) -> None:
        host, port = address.split(":")
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(20)
        self.socket.connect((host, int(port)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def told(self, what: bytes) -> bytes:
        """What comes until `what` has."""
        found = b""
        while what not in found:
            chunk = self.socket.recv(65_536)
            assert chunk, f"the gateway closed, and said {found[-200:]!r}"
            found += chunk
        return found

    def everything(self) -> bytes:
        """What comes until the gateway closes."""
        found = b""
        with contextlib.suppress(ConnectionError):
            while chunk := self.socket.recv(65_536):
                found += chunk
        return found


class GrpcClient(Client):
    """Frames, by hand."""

    def __init__(self, address: str, *, window: int = 2**24, small: bool = False) -> None:
        super().__init__(address, small=small)
        self.send(f.PREFACE + f.settings({f.INITIAL_WINDOW_SIZE: window}))

    @staticmethod
    def head(stream: int, *more: tuple[bytes, bytes]) -> bytes:
        fields = [(b":path", PREDICT.encode()), (b":authority", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
        return f.headers(stream, b"\x83\x86" + b"".join(f.literal(name, value) for name, value in fields), end=False, most=2**14)

    @staticmethod
    def body(stream: int, message: bytes) -> bytes:
        return f.frame(f.DATA, f.END_STREAM, stream, b"\x00" + len(message).to_bytes(4, "big") + message)

    def call(self, stream: int, message: bytes, *more: tuple[bytes, bytes]) -> None:
        self.send(self.head(stream, *more) + self.body(stream, message))
