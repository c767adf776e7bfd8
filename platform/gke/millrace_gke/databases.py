"""Two instances of Cloud SQL, MySQL for Kubeflow Pipelines and PostgreSQL for the rest, on private addresses with names of their own.

Names, because an address changes when an instance is restored into a new one. Users and passwords are not made here: a password in the program would
be a password in its state. `python -m mlplatform.infrastructure secrets ENV` prints what a person types.
"""

from __future__ import annotations

from typing import Any

import pulumi_gcp as gcp

from millrace_gke.ground import Ground
from millrace_gke.keys import Key, Keys
from millrace_gke.network import Net
from millrace_gke.storage import ROLES
from mlplatform import google_names
from mlplatform.google_names import Engine
from mlplatform.identities import Right

DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
LOG_DAYS = 7
"""Any moment of so many days can be restored."""


def databases(ground: Ground, net: Net, keys: Keys, buckets: dict[str, gcp.storage.Bucket]) -> dict[str, gcp.sql.DatabaseInstance]:
    """By engine; none where databases are in the cluster."""
    if keys.databases is None:
        return {}
    made: dict[str, gcp.sql.DatabaseInstance] = {engine: _instance(ground, engine, net, keys.databases) for engine in Engine}
    _names(ground, net, made)
    for engine, instance in made.items():
        for name in google_names.databases(ground.environment, Engine(engine)):
            gcp.sql.Database(f"{engine}-{name}", name=name, instance=instance.name, opts=ground.options(holds_data=True))
        if "backups" in buckets:
            _exports(ground, engine, instance, buckets["backups"])
    return made


def _instance(ground: Ground, engine: Engine, net: Net, key: Key) -> gcp.sql.DatabaseInstance:
    wanted = ground.environment.database
    return gcp.sql.DatabaseInstance(
        engine,
        name=google_names.instance(ground.environment, engine),
        region=ground.cloud.region,
        database_version=wanted.mysql if engine == Engine.MYSQL else wanted.postgresql,
        encryption_key_name=key.key.id,
        settings=_settings(ground, engine, net),
        deletion_protection=ground.cloud.deletion_protection,
        # Disks grow by themselves and never shrink: going back to the size of the file would be a new instance.
        opts=ground.options(net.lent, key.granted, holds_data=True, ignore=["settings.diskSize"]),
    )


def _names(ground: Ground, net: Net, made: dict[str, gcp.sql.DatabaseInstance]) -> None:
    zone = gcp.dns.ManagedZone(
        "internal",
        name=f"{ground.name}-internal",
        dns_name=f"{google_names.ZONE}.",
        description="Names of the databases, for the platform's network only",
        visibility="private",
        private_visibility_config={"networks": [{"network_url": net.network.id}]},
        labels=ground.labels,
        opts=ground.options(),
    )
    for engine, instance in made.items():
        gcp.dns.RecordSet(
            engine,
            name=f"{google_names.host(Engine(engine))}.",
            managed_zone=zone.name,
            type="A",
            ttl=60,
            rrdatas=[instance.private_ip_address],
            opts=ground.options(),
        )


def _exports(ground: Ground, engine: str, instance: gcp.sql.DatabaseInstance, backups: gcp.storage.Bucket) -> None:
    """`gcloud sql export` writes, and `import` reads, as the instance itself. It can take no dump away."""
    for role in ROLES[Right.ADD]:
        gcp.storage.BucketIAMMember(
            f"{engine}/backups/{role.rpartition('.')[2]}",
            bucket=backups.name,
            role=role,
            member=instance.service_account_email_address.apply(lambda email: f"serviceAccount:{email}"),
            opts=ground.options(),
        )


def _settings(ground: Ground, engine: Engine, net: Net) -> dict[str, Any]:
    wanted, window = ground.environment.database, ground.cloud.maintenance
    return {
        "tier": wanted.tier,
        # Without it newer versions become Enterprise Plus, which has no `db-custom-…` machines.
        "edition": "ENTERPRISE",
        "availability_type": "REGIONAL" if wanted.high_availability else "ZONAL",
        "disk_type": "PD_SSD",
        "disk_size": wanted.disk_gb,
        "disk_autoresize": True,
        "deletion_protection_enabled": ground.cloud.deletion_protection,
        "retain_backups_on_delete": True,
        "ip_configuration": {
            "ipv4_enabled": False,
            "private_network": net.network.id,
            "allocated_ip_range": net.lent_range.name,
            # Kubeflow's MySQL client speaks no TLS; what it says stays in the platform's network.
            "ssl_mode": "ALLOW_UNENCRYPTED_AND_ENCRYPTED" if engine == Engine.MYSQL else "ENCRYPTED_ONLY",
        },
        "backup_configuration": {
            "enabled": True,
            "start_time": wanted.backups.at,
            "location": ground.cloud.region,
            **({"binary_log_enabled": True} if engine == Engine.MYSQL else {"point_in_time_recovery_enabled": True}),
            "transaction_log_retention_days": LOG_DAYS,
            "backup_retention_settings": {"retained_backups": wanted.backups.keep, "retention_unit": "COUNT"},
        },
        "maintenance_window": {"day": DAYS.index(window.days[0]) + 1, "hour": int(window.start[:2]), "update_track": "stable"},
        "insights_config": {"query_insights_enabled": True, "record_client_address": False},
        "user_labels": ground.labels,
    }
