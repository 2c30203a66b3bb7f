"""Quarantine: the intent, durable before the act, and the record from which release and refusal are rebuilt."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from tenure.api.base import (
    AGE,
    ATOMIC,
    SET,
    ApiModel,
    Clip,
    Column,
    Count,
    Duration,
    First,
    Kind,
    LineText,
    Name,
    Namespace,
    NameText,
    ProseText,
    ShortText,
    Timestamp,
    Uid,
    keyed,
)
from tenure.api.conditions import Conditions
from tenure.api.names import Stage, Verdict

MOST_BINDINGS: Final = 500
"""Pre-images in one object. Those of more continue in further ones."""
MOST_SUBJECTS: Final = 256
"""Subjects that are taken out of one binding."""
MOST_FURTHER: Final = 8
"""Further objects of one Quarantine."""


class QuarantineSubject(ApiModel):
    """What is quarantined; `namespace` only where it is not the Quarantine's own."""

    kind: Annotated[str, Field(min_length=1, max_length=63)]
    namespace: Namespace | None = None
    name: Name
    uid: Uid
    type: ShortText | None = None
    """Of a Secret: its type."""
    entitlement: Annotated[str, Field(max_length=512)] | None = None
    """Of a binding: the role and the subject that is taken out, as ClusterRole/edit/ServiceAccount:payments:ci."""


class QuarantineSpec(ApiModel):
    """What is wanted; every write is the operator's."""

    subject: QuarantineSubject
    """What loses its use."""
    findings: Annotated[tuple[Name, ...], Field(max_length=64), SET] = ()
    """The findings that want it."""
    stages: Annotated[tuple[Stage, ...], Field(max_length=len(Stage)), SET] = ()
    """The stages wanted."""
    verdict: Literal[Verdict.QUARANTINE, Verdict.REVOKE] = Verdict.QUARANTINE
    """Quarantine, or Revoke."""
    revoke_at: Timestamp | None = None
    """When it is revoked, unless use is attempted."""
    stage_interval: Duration | None = None
    """Time between two stages."""
    hold_after_use: Duration | None = None
    """Revocation waits that long after an attempted use."""
    reason: ProseText = ""
    """Why, in words."""
    continues: Name | None = None
    """The Quarantine of which this is a further object: it holds pre-images for which that one has no room, and nothing
    else. To release them, release that one."""


class StageStatus(ApiModel):
    """How far one stage is."""

    name: Stage
    done: Timestamp | None = None
    verified: Timestamp | None = None
    """When its effect was first proved."""
    error: LineText = ""
    """Why it is not in force now."""

    @property
    def in_force(self) -> bool:
        """Whether it was proved, and nothing is known that took it back."""
        return self.verified is not None and not self.error


class DisabledToken(ApiModel):
    """A token Secret whose label we set, with its pre-image (absent: there was none) and the ServiceAccount it
    belongs to."""

    name: NameText
    uid: ShortText
    service_account: NameText = ""
    service_account_uid: ShortText = ""
    resource_version_before: ShortText | None = None
    label_before: ShortText | None = None
    off: bool = False
    """It was seen switched off."""


class PreImageRoleRef(ApiModel):
    """The roleRef of a binding as it stood."""

    api_group: ShortText = ""
    kind: ShortText
    name: NameText


class BindingSubject(ApiModel):
    """A subject of a binding as it stood."""

    kind: ShortText
    api_group: ShortText | None = None
    namespace: ShortText | None = None
    name: NameText


class RemovedSubject(ApiModel):
    """A subject that was taken out, and its place."""

    index: Count
    subject: BindingSubject


class PreImage(ApiModel):
    """What a binding was before the first change; release restores only onto the same uid and roleRef."""

    api_version: ShortText
    kind: ShortText
    namespace: ShortText | None = None
    name: NameText
    uid: ShortText
    role_ref: PreImageRoleRef
    role_rules_digest: Annotated[str, Clip(128)] = ""
    removed: Annotated[tuple[RemovedSubject, ...], Field(max_length=MOST_SUBJECTS), ATOMIC] = ()


class Revoked(ApiModel):
    """A name that stays refused while its ServiceAccount lives; `intended` when we set out to delete the object (None:
    somebody else deleted it), `done` once it is gone."""

    kind: ShortText
    name: NameText
    uid: ShortText
    service_account: NameText = ""
    service_account_uid: ShortText = ""
    intended: Timestamp | None = None
    done: Timestamp | None = None


class Tripwire(ApiModel):
    """The last-used stamp before the token was disabled: a later one is an attempted use."""

    last_used_before: ShortText = ""


class AttemptedUse(ApiModel):
    """One attempted use, as the audit log tells it; empty is what it does not tell."""

    at: Timestamp
    by: Annotated[str, Clip(512)] = ""
    """Who."""
    source: Annotated[str, Clip(64)] = ""
    """The client's address."""
    user_agent: Annotated[str, Clip(256)] = ""
    what: LineText = ""
    """What was asked for, and the answer."""


class QuarantineRelease(ApiModel):
    """Who released it and why, and since when the restoring runs."""

    by: Annotated[str, Clip(253)] = ""
    reason: LineText = ""
    started: Timestamp | None = None


class Revert(ApiModel):
    """Somebody took back what was done to one object: the last time, by which field manager, and how often."""

    at: Timestamp
    object: Annotated[str, Clip(320)] = ""
    """Kind/name."""
    manager: ShortText = ""
    """The field manager; empty where the API server does not tell."""
    what: LineText = ""
    """What was taken back."""
    count: Count = 1
    """How often."""
    repeated: bool = False
    """Whether it was done again since."""


class QuarantineStatus(ApiModel):
    """What was done, and everything needed to undo it. Never Secret data."""

    observed_generation: int = -1
    stages: Annotated[tuple[StageStatus, ...], First(8), keyed("name")] = ()
    """How far each stage is."""
    # Records from which things are restored and refused: too many of them is an error, never a silent cut.
    disabled_tokens: Annotated[tuple[DisabledToken, ...], Field(max_length=2000), ATOMIC] = ()
    """Token Secrets that were switched off, with the label as it was."""
    pre_images: Annotated[tuple[PreImage, ...], Field(max_length=MOST_BINDINGS), ATOMIC] = ()
    """Bindings as they were before the first change."""
    continued_in: Annotated[tuple[Name, ...], Field(max_length=MOST_FURTHER), ATOMIC] = ()
    """The further objects that hold the rest of the pre-images."""
    residual: Annotated[tuple[LineText, ...], First(8), ATOMIC] = ()
    """What the API server still allows of what was taken, and by which binding."""
    revoked: Annotated[tuple[Revoked, ...], Field(max_length=2000), ATOMIC] = ()
    """Names that stay refused."""
    last_attempt: Timestamp | None = None
    """When use was last attempted."""
    attempt: AttemptedUse | None = None
    """That attempt, where an audit log is followed."""
    tripwire: Tripwire | None = None
    release: QuarantineRelease | None = None
    reverts: Annotated[tuple[Revert, ...], First(64), ATOMIC] = ()
    """What others took back, once per object and field manager."""
    conditions: Conditions = ()
    """Contended: where others took it back too often, nothing more is done, and this is what to commit."""


KIND = Kind(
    kind="Quarantine",
    plural="quarantines",
    singular="quarantine",
    short_name="quar",
    namespaced=True,
    description="Quarantine is a reversible loss of use. Deleting it, with the verb release, restores what was taken.",
    spec=QuarantineSpec,
    status=QuarantineStatus,
    status_subresource=True,
    columns=(
        Column("Kind", ".spec.subject.kind"),
        Column("Subject", ".spec.subject.name"),
        Column("Verdict", ".spec.verdict"),
        Column("Stages", ".spec.stages"),
        Column("Last Attempt", ".status.lastAttempt"),
        Column("Revoke At", ".spec.revokeAt"),
        Column("Reason", ".spec.reason", wide=True),
        Column("Continues", ".spec.continues", wide=True),
        AGE,
    ),
    selectable=(
        ".spec.subject.kind",
        ".spec.subject.name",
        ".spec.subject.uid",
        ".spec.verdict",
        ".spec.continues",
    ),
)
