"""What this package adds to the `millrace` command. `millrace --help` loads this module, so the work is imported late."""

from __future__ import annotations


def monitor(argv: list[str]) -> int:
    """Drift, quality and golden-request parity of served models, from the prediction log"""
    from mlserving.monitor.command import main

    return main(argv)


def serve(argv: list[str]) -> int:
    """Answer prediction requests (TF Serving's gRPC and REST) from the model store"""
    from mlserving.server.serve_command import main

    return main(argv)


def predict(argv: list[str]) -> int:
    """Ask a served model for its prediction"""
    from mlserving.client.predict_command import main

    return main(argv)
