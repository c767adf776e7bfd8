"""What this package adds to the `millrace` command. `millrace --help` loads this module, so the work is imported late."""

from __future__ import annotations


def serve(argv: list[str]) -> int:
    """Answer prediction requests (TF Serving's gRPC and REST) from the model store"""
    from mlserving.server.serve_command import main

    return main(argv)


def predict(argv: list[str]) -> int:
    """Ask a served model for its prediction"""
    from mlserving.client.predict_command import main

    return main(argv)


def fetch(argv: list[str]) -> int:
    """Copy one version of a model from a store, verified: what a pod does before it serves"""
    from mlserving.fetch import main

    return main(argv)


def digest(argv: list[str]) -> int:
    """Print the digest of a version's folder"""
    from mlserving.fetch import digest_main

    return digest_main(argv)


def golden(argv: list[str]) -> int:
    """Ask a served version its golden requests and compare the answers"""
    from mlserving.client.golden import main

    return main(argv)
