"""What the program would make, without Google, Pulumi's own program, or a credential: `python -m millrace_gke.offline` reads an environment as JSON from each line
and answers with a line.

The real program runs against Pulumi's own test mode, which writes down each resource that is asked for and answers with names in angle brackets
for what only Google knows. `mlplatform.infrastructure.resources` starts this and reads what it prints.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc

from millrace_gke.program import build
from mlplatform.environment import Environment

TOLD_BY_GOOGLE: dict[str, tuple[str, ...]] = {
    "gcp:serviceaccount/account:Account": ("email",),
    "gcp:projects/serviceIdentity:ServiceIdentity": ("email",),
    "gcp:sql/databaseInstance:DatabaseInstance": ("privateIpAddress", "serviceAccountEmailAddress"),
    "gcp:compute/globalAddress:GlobalAddress": ("address",),
    "gcp:certificatemanager/dnsAuthorization:DnsAuthorization": ("dnsResourceRecords",),
    "gcp:projects/iAMCustomRole:IAMCustomRole": ("name",),
    "gcp:artifactregistry/repository:Repository": ("name",),
}
"""Outputs that the program reads and did not write itself."""


class Answers(mocks.Mocks):
    """Google's part: names in angle brackets."""

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:  # noqa: ARG002  # there is one call
        """Answers what is looked up, which is one account."""
        return {"emailAddress": "<Cloud Storage's agent>", "id": "<id>"}, []

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        """Answers what is made with its id, and what it was made of."""
        told = {key: f"<{key} of {args.name}>" for key in TOLD_BY_GOOGLE.get(args.typ, ()) if key not in args.inputs}
        if "dnsResourceRecords" in told:
            told["dnsResourceRecords"] = [{"name": "<name>", "type": "CNAME", "data": "<data>"}]  # type: ignore[assignment]  # a list, as Google's
        return f"<{args.typ.rpartition(':')[2]} {args.name}>", {**args.inputs, **told}


class _Notebook(mocks.MockMonitor):
    """Pulumi's test monitor, which forgets what a resource's options were; here they are written down."""

    def __init__(self, answers: mocks.Mocks) -> None:
        super().__init__(answers)
        self.written: list[dict[str, Any]] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  # Pulumi's name
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]  # Pulumi's test monitor has no types
        if request.type.startswith("gcp:"):
            self.written.append(
                {
                    "type": request.type,
                    "name": request.name,
                    "inputs": rpc.deserialize_properties(request.object),
                    "protected": request.protect,
                    "after": sorted(urn.rpartition("::")[2] for urn in request.dependencies),
                }
            )
        return answer


def record(environment: Environment) -> list[dict[str, Any]]:
    """Each resource as {type, name, inputs, protected, after}, in the order of type and name."""
    notebook = _Notebook(Answers())
    mocks.set_mocks(Answers(), project="millrace", stack=environment.name, preview=False, monitor=notebook)
    pulumi.runtime.test(lambda: pulumi.Output.all(**build(environment)))()  # type: ignore[no-untyped-call]  # Pulumi's decorator has no types
    return sorted(notebook.written, key=lambda one: (one["type"], one["name"]))


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(record(Environment.model_validate_json(line))))
