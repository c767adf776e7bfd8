"""The certificate of the pages, and what must be written into the company's own DNS. The load balancer itself is a Gateway in the cluster."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from millrace_gke.ground import Ground
from mlplatform import google_names


def entrance(ground: Ground) -> dict[str, pulumi.Input[object]]:
    """Outputs: the record that proves that the domain is yours, and the address that the pages' names must point at."""
    domain = ground.environment.access.domain
    if domain is None:
        return {}
    address = gcp.compute.GlobalAddress(
        "pages", name=google_names.entrance(ground.environment), address_type="EXTERNAL", labels=ground.labels, opts=ground.options()
    )
    proof = gcp.certificatemanager.DnsAuthorization(
        "pages", name=google_names.entrance(ground.environment), domain=domain, labels=ground.labels, opts=ground.options()
    )
    certificate = gcp.certificatemanager.Certificate(
        "pages",
        name=google_names.entrance(ground.environment),
        managed={"domains": [f"*.{domain}"], "dns_authorizations": [proof.id]},
        labels=ground.labels,
        opts=ground.options(),
    )
    held = gcp.certificatemanager.CertificateMap(
        "pages", name=google_names.entrance(ground.environment), labels=ground.labels, opts=ground.options()
    )
    gcp.certificatemanager.CertificateMapEntry(
        "pages",
        name=google_names.entrance(ground.environment),
        map=held.name,
        certificates=[certificate.id],
        hostname=f"*.{domain}",
        labels=ground.labels,
        opts=ground.options(),
    )
    return {"proof_of_domain": proof.dns_resource_records, "pages_address": address.address}
