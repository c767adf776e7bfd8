"""The file that tells scripts where a server listens, once it is ready."""

from __future__ import annotations

import json
import uuid
from pathlib import Path


def write_ready_file(path: Path, grpc: str, rest: str, pid: int, **more: str) -> None:
    """Tell scripts where the server listens; whole, by one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(json.dumps({"grpc": grpc, "rest": rest, "pid": pid, **more}) + "\n", encoding="utf-8")
    temporary.replace(path)
