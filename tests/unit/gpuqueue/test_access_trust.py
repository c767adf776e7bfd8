"""Whom we take for the API server."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from gpuqueue.cluster import access

KUBECONFIG = """
current-context: c
contexts: [{{name: c, context: {{cluster: c}}}}]
clusters: [{{name: c, cluster: {{server: "https://127.0.0.1:1", certificate-authority: {file}}}}}]
"""


def test_an_authority_that_kubectl_trusts_is_trusted_on_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ssl.create_default_context

    def as_in_python_313(**arguments: Any) -> ssl.SSLContext:
        context = usual(**arguments)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_in_python_313)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.format(file=Authority(tmp_path / "ca").certificate))
    tls = access.find(str(tmp_path / "kubeconfig")).tls
    assert isinstance(tls, ssl.SSLContext)
    assert not tls.verify_flags & ssl.VERIFY_X509_STRICT
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(tls.get_ca_certs()) == 1
