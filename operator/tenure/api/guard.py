"""QuarantineGuard: the parameters of the admission guards, as maps: a request costs one, however many entries."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tenure.api.base import AGE, WHOLE, ApiModel, Clip, Generation, Kind, NameText, ShortText, Uid

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


class RequestEntry(ApiModel):
    """An exception as it stands now, for the guard on decisions: whose request it is, and which state of it counts."""

    uid: Uid
    """Its uid."""
    generation: Generation
    """Its present generation: a verdict that names an earlier one is about something else."""
    requested_by: Annotated[str, Clip(1024)] = ""
    """Who wrote the present spec, and so cannot approve it."""
    on_behalf_of: Annotated[str, Clip(1024)] = ""
    """The person behind a pipeline, who cannot approve it either."""


class StateEntry(ApiModel):
    """A claim or finding that has moved on since it was created: which state of it counts now."""

    uid: Uid
    """Its uid."""
    version: Generation
    """metadata.generation of the claim, spec.revision of the finding."""


Entries = Annotated[dict[str, GuardEntry], Field(max_length=MAX_ENTRIES), WHOLE]
Requests = Annotated[dict[str, RequestEntry], Field(max_length=MAX_ENTRIES), WHOLE]
States = Annotated[dict[str, StateEntry], Field(max_length=MAX_ENTRIES), WHOLE]


class QuarantineGuardSpec(ApiModel):
    """Quarantined names; `subjects` and `groups` stand only in the operator's namespace, for bindings from anywhere."""

    service_accounts: Entries = Field(default_factory=dict)
    """Quarantined ServiceAccounts of the namespace."""
    secrets: Entries = Field(default_factory=dict)
    """Quarantined Secrets of the namespace."""
    withheld: Entries = Field(default_factory=dict)
    """Quarantined Secrets of the namespace that are no tokens: no new pod may consume them."""
    revoked_names: Entries = Field(default_factory=dict)
    """Names of revoked token Secrets, refused to everybody."""
    subjects: Entries = Field(default_factory=dict)
    """User names of quarantined ServiceAccounts, for bindings from anywhere."""
    writers: Entries = Field(default_factory=dict)
    """User names of quarantined ServiceAccounts whose every write is refused, where that stage is installed."""
    groups: Entries = Field(default_factory=dict)
    """Groups of namespaces with quarantined ServiceAccounts, for bindings from anywhere."""
    entitlements: Entries = Field(default_factory=dict)
    """Subjects that stay out of one binding, as "namespace/binding ServiceAccount system:serviceaccount:ns:name"."""
    exceptions: Requests = Field(default_factory=dict)
    """In the object `decisions`: every exception of the namespace, by name."""
    claims: States = Field(default_factory=dict)
    """In the object `decisions`: claims past their first generation, by name."""
    findings: States = Field(default_factory=dict)
    """In the object `decisions`: findings past their first revision, by name."""


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
