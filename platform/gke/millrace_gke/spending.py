"""Mail when the month gets expensive. It stops nothing: GPUs that a team holds are the queue's to limit."""

from __future__ import annotations

import pulumi_gcp as gcp

from millrace_gke.ground import Ground


def spend_alert(ground: Ground) -> None:
    """One for the project, by calendar month."""
    alert = ground.cloud.spend_alert
    gcp.billing.Budget(
        "spend-alert",
        display_name=f"Millrace {ground.name}",
        billing_account=ground.cloud.billing_account,
        amount={"specified_amount": {"currency_code": alert.currency, "units": str(alert.monthly)}},
        budget_filter={"projects": [f"projects/{ground.cloud.number}"], "calendar_period": "MONTH"},
        threshold_rules=[{"threshold_percent": percent / 100} for percent in alert.at_percent],
        opts=ground.options(),
    )
