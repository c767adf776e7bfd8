"""Other people's servers that take messages: an HTTP address that remembers what was posted, and a mail server."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Inbox:
    """What arrived, and what the next ones are answered."""

    def __init__(self) -> None:
        self.port = 0
        self.posted: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.mails: list[EmailMessage] = []
        self.answers: list[int] = []
        """HTTP statuses, or SMTP codes for the data, of the next messages; then all is well."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/B0/secret-path"


@contextmanager
def http_inbox() -> Iterator[Inbox]:
    """An address that takes JSON."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = inbox.answers.pop(0) if inbox.answers else 200
            if status == 200:
                inbox.posted.append(json.loads(body))
                inbox.headers.append(dict(self.headers))
            said = b"ok" if status == 200 else b"no_service"
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler), inbox):
        yield inbox


@contextmanager
def mail_inbox() -> Iterator[Inbox]:
    """A server that takes mail as RFC 5321 has it, without encryption."""
    inbox = Inbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 mail.example ESMTP")
            while line := self.rfile.readline().decode().strip():
                match line[:4].upper():
                    case "EHLO":
                        self._say("250 mail.example")
                    case "DATA":
                        self._say("354 go on")
                        self._data()
                    case "QUIT":
                        self._say("221 bye")
                        return
                    case _:
                        self._say("250 ok")

        def _data(self) -> None:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
            code = inbox.answers.pop(0) if inbox.answers else 250
            if code == 250:
                mail = message_from_bytes(b"".join(lines), policy=policy.default)
                assert isinstance(mail, EmailMessage)
                inbox.mails.append(mail)
            self._say(f"{code} told")

        def _say(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with _serving(Server(("127.0.0.1", 0), Handler), inbox):
        yield inbox


@contextmanager
def _serving(server: socketserver.TCPServer, inbox: Inbox) -> Iterator[None]:
    inbox.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
