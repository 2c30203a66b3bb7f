"""QuarantineGuard: the parameters of the admission guards, as maps: a request costs one, however many entries."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tenure.api.base import AGE, WHOLE, ApiModel, Clip, Kind, NameText, ShortText

MAX_ENTRIES = 8_000
"""Measured without cost to a request at this size (kubernetes.md row 40); beyond it an object nears etcd's 1.5 MB."""


class GuardEntry(ApiModel):
    """What a refusal says: which Quarantine (`namespace/name`), whose, how to reach them."""

    quarantine: Annotated[str, Field(min_length=3, max_length=317)]
    """namespace/name of the Quarantine."""
    owner: ShortText | None = None
    """Who answers for the identity."""
    contact: Annotated[str, Clip(253)] | None = None
    """How they are reached."""
    service_account: NameText | None = None
    """Whose token the Secret is."""


Entries = Annotated[dict[str, GuardEntry], Field(max_length=MAX_ENTRIES), WHOLE]


class QuarantineGuardSpec(ApiModel):
    """Quarantined names; `subjects` and `groups` stand only in the operator's namespace, for bindings from anywhere."""

    service_accounts: Entries = Field(default_factory=dict)
    """Quarantined ServiceAccounts of the namespace."""
    secrets: Entries = Field(default_factory=dict)
    """Quarantined Secrets of the namespace."""
    revoked_names: Entries = Field(default_factory=dict)
    """Names of revoked token Secrets, refused to everybody."""
    subjects: Entries = Field(default_factory=dict)
    """User names of quarantined ServiceAccounts, for bindings from anywhere."""
    groups: Entries = Field(default_factory=dict)
    """Groups of namespaces with quarantined ServiceAccounts, for bindings from anywhere."""


KIND = Kind(
    kind="QuarantineGuard",
    plural="quarantineguards",
    singular="quarantineguard",
    short_name="qguard",
    namespaced=True,
    description="QuarantineGuard holds the parameters of the admission guards. Written by the operator alone.",
    spec=QuarantineGuardSpec,
    status=None,
    status_subresource=False,
    columns=(AGE,),
)
