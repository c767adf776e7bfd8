"""Programs that print credentials, such as GKE's: what a kubeconfig says of them (`exec`), and what they say."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from gpuqueue.errors import Unavailable

_PROGRAM_SECONDS = 30.0
_EARLY_SECONDS = 60.0
"""A token is not used for so long before it expires."""
_AGAIN = "Sign in again, then: kubectl get namespaces"


class Variable(msgspec.Struct):
    """A variable of a program's environment."""

    name: str
    value: str = ""


class Program(msgspec.Struct, rename="camel"):
    """What prints credentials (`exec`)."""

    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    api_version: str = "client.authentication.k8s.io/v1"
    install_hint: str | None = None


class _Token(msgspec.Struct, rename={"expires": "expirationTimestamp"}):
    token: Annotated[str, msgspec.Meta(min_length=1)]
    expires: str | None = None


class _Credential(msgspec.Struct):
    status: _Token


async def credential(program: Program) -> tuple[str, float]:
    """A token, and until when it is used.

    Raises:
        Unavailable: the program is not there, failed, or printed something else.
    """
    command = [program.command, *(program.args or ())]
    asked = {"apiVersion": program.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    settings = {item.name: item.value for item in program.env or ()} | {"KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        async with asyncio.timeout(_PROGRAM_SECONDS):
            out, complaint = await _said_by(command, {**os.environ, **settings})
    except FileNotFoundError as error:
        raise Unavailable(f"{program.command} of the kubeconfig is not installed. {program.install_hint or ''}".strip()) from error
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"{' '.join(command)} gave no token: {error!r}. {_AGAIN}") from error
    try:
        status = msgspec.json.decode(out, type=_Credential).status
        expires = datetime.fromisoformat(status.expires).timestamp() - _EARLY_SECONDS if status.expires else time.time() + 300
    except (msgspec.MsgspecError, ValueError) as error:
        told = complaint.decode(errors="replace").strip()[-500:]
        raise Unavailable(f"{' '.join(command)} gave no token: {told or error}. {_AGAIN}") from error
    return status.token, expires


async def _said_by(command: Sequence[str], environment: Mapping[str, str]) -> tuple[bytes, bytes]:
    """What a program prints, and complains of. It does not outlive whoever waits for it."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        return await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
