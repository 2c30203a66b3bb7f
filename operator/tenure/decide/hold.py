"""A Quarantine as its findings see it: how far the act is, and who is ending it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.api.conditions import ConditionType
from tenure.api.names import Verdict
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.model.records import Authored

Quarantine = Authored[QuarantineSpec, QuarantineStatus]


@dataclass(frozen=True, slots=True)
class Hold:
    """`enforced` and `verified` are set once every wanted stage is done; `revoked` once the subject itself is gone."""

    reference: str
    verdict: Verdict
    started: datetime
    enforced: datetime | None = None
    verified: datetime | None = None
    error: str = ""
    revoke_at: datetime | None = None
    revoke_started: datetime | None = None
    revoked: datetime | None = None
    released: datetime | None = None
    """When a person deleted the Quarantine; None while it stands or when the operator is ending it."""
    ending: bool = False
    contended: str = ""
    """What others took back so often that nothing more is done to it, and what to commit; "" for nothing."""
    in_force: bool = True
    """Nothing of what was done is known to have been taken back."""
    residual: tuple[str, ...] = ()
    """What it does not end, as it was seen live."""


def hold_of(quarantine: Quarantine, operator: str) -> Hold:
    """How the act stands. Stage errors are joined in the order of the stages. A release by the user `operator` is one
    that the operator itself began because no finding wanted the act any more: nobody else can be of that name, so no
    person's release is taken for it."""
    spec, status = quarantine.spec, quarantine.status
    stages = {s.name: s for s in status.stages} if status else {}
    wanted = [stages.get(name) for name in spec.stages]
    done = [s.done for s in wanted if s and s.done]
    verified = [s.verified for s in wanted if s and s.verified]
    complete = len(done) == len(wanted)
    revocations = list(status.revoked) if status else []
    intended = [r.intended for r in revocations if r.intended]
    finished = [r.done for r in revocations if r.done]
    release = status.release if status else None
    conditions = status.conditions if status else ()
    own_release = release is not None and release.by == operator
    subject = spec.subject
    # A ServiceAccount is revoked once it is gone itself, not with its tokens.
    gone = subject.kind == "Secret" or any(r.uid == subject.uid for r in revocations)
    return Hold(
        reference=f"Quarantine/{quarantine.name}",
        verdict=spec.verdict,
        started=quarantine.created,
        enforced=max(done) if complete and done else None,
        verified=max(verified) if len(verified) == len(wanted) and verified else None,
        error="; ".join(f"{s.name}: {s.error}" for s in wanted if s and s.error),
        revoke_at=spec.revoke_at,
        revoke_started=min(intended) if intended else None,
        revoked=max(finished) if gone and finished and len(finished) == len(revocations) else None,
        released=quarantine.deletion if quarantine.deletion and not own_release else None,
        ending=own_release or quarantine.deletion is not None,
        contended=next((c.message for c in conditions if c.type == ConditionType.CONTENDED), ""),
        in_force=not any(s and s.error for s in wanted),
        residual=status.residual if status else (),
    )
