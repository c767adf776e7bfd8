"""ML Metadata's gRPC server over the store of its wheel: the same C++ store as in the public image, which cannot be pulled everywhere.

It takes the options of the public server that the release's Deployment gives. Each method of the service is a function of the store from bytes to bytes,
so requests and answers are handed through as they are.
"""

from __future__ import annotations

import argparse
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

_SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]
log = logging.getLogger("metadata")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LARGEST = 100 * 1024 * 1024


class Store(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """Every method that the wheel's store has. The store is one connection: it is asked one thing at a time."""

    def __init__(self, connection: Any) -> None:
        options = metadata_store_pb2.MigrationOptions(enable_upgrade_migration=True)
        self._store = metadata_store.CreateMetadataStore(connection.SerializeToString(), options.SerializeToString())
        self._one = threading.Lock()

    def service(self, asked: Any) -> Any:
        """As gRPC asks for it: the handler of a method."""
        method = asked.method.rpartition("/")[2]
        ask = getattr(metadata_store, method, None)
        if asked.method != f"/{_SERVICE.full_name}/{method}" or ask is None:
            return None

        def answer(request: bytes, context: Any) -> bytes:
            with self._one:
                answered, trouble, code = ask(self._store, request)
            if code:
                told = trouble.decode(errors="replace") if isinstance(trouble, bytes) else str(trouble)
                log.info("%s: %s", method, told)
                context.abort(_CODES[code], told)
            return bytes(answered)

        return grpc.unary_unary_rpc_method_handler(answer)


def _connection(options: argparse.Namespace) -> Any:
    found = metadata_store_pb2.ConnectionConfig()
    found.mysql.host, found.mysql.port = options.mysql_config_host, options.mysql_config_port
    found.mysql.database, found.mysql.user, found.mysql.password = (
        options.mysql_config_database,
        options.mysql_config_user,
        options.mysql_config_password,
    )
    return found


def main() -> None:
    """Answer until the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc_port", type=int, default=8080)
    parser.add_argument("--mysql_config_port", type=int, default=3306)
    for name in ("database", "host", "user", "password"):
        parser.add_argument(f"--mysql_config_{name}")
    options, _ = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    limits = [("grpc.max_receive_message_length", _LARGEST), ("grpc.max_send_message_length", _LARGEST)]
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Store(_connection(options))], options=limits)
    server.add_insecure_port(f"[::]:{options.grpc_port}")
    server.start()
    log.info("answers on port %d", options.grpc_port)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
