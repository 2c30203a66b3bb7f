"""Release. What was taken is given back the same way whoever ends the Quarantine:

a deletion by a person      findings open again -> label back -> guard -> finalizer off
a person's verdict          release in status -> the decision's status -> delete -> as above
a claim, exception or fix   release in status -> delete -> label back -> guard -> finalizer off
"""

from __future__ import annotations

import logging
from datetime import timedelta

from tenure.api.decision import DecisionOutcome, DecisionReason, IdentityDecisionStatus
from tenure.api.names import FINALIZER, Phase, Verdict
from tenure.api.quarantine import QuarantineRelease, QuarantineStatus
from tenure.decide.hold import Quarantine
from tenure.decide.verdict import answer
from tenure.enforce import records
from tenure.enforce.means import Means
from tenure.enforce.quarantine import is_itself_revoked
from tenure.enforce.work import WORK
from tenure.kube.errors import NotFound
from tenure.kube.resources import IDENTITY_FINDINGS
from tenure.model.evaluation import Decision, Ruling, settled
from tenure.model.keys import Key
from tenure.telemetry import events
from tenure.telemetry.logs import about

log = logging.getLogger(__name__)


async def release(m: Means, key: Key, quarantine: Quarantine) -> None:
    """No finding wants it any more: says so first, so that the deletion is not taken for a person's."""
    status = quarantine.status or QuarantineStatus()
    release = QuarantineRelease(by=m.store.operator, reason="none of its findings wants it any more", started=m.now())
    quarantine = await m.write_status(quarantine, status.model_copy(update={"release": release}))
    await m.delete(quarantine)


async def by_verdict(m: Means, quarantine: Quarantine, made: Decision) -> None:
    """A person's Release: written down first, and from there on as if that person had deleted the Quarantine."""
    status = quarantine.status or QuarantineStatus()
    asked = QuarantineRelease(by=made.spec.by or "", reason=made.spec.reason, started=m.now())
    await go_on(m, await m.write_status(quarantine, status.model_copy(update={"release": asked})))


async def go_on(m: Means, quarantine: Quarantine) -> None:
    """Answers the person who released it while there is a Quarantine to tell of, then deletes it."""
    made = m.release_asked(quarantine)
    own = (
        quarantine.status is None
        or quarantine.status.release is None
        or quarantine.status.release.by == m.store.operator
    )
    if made is not None and not own:
        ruling = Ruling.counted(DecisionReason.RELEASED)
        text = "What was taken is given back; its findings are open again."
        await _answer(m, made, answer(made, ruling, text, effect=f"Quarantine/{quarantine.name}"))
    await m.delete(quarantine)


async def refuse(m: Means, quarantine: Quarantine) -> None:
    """Says to whoever wants to release a record that it cannot be."""
    for made in m.store.decisions_about(quarantine.namespace, quarantine.uid):
        if settled(made) is None:
            text = "Its subject was revoked: that cannot be given back. The Quarantine stays as the record of it."
            await _answer(m, made, answer(made, Ruling(DecisionOutcome.VOID, DecisionReason.ALREADY_DECIDED), text))


async def _answer(m: Means, made: Decision, status: IdentityDecisionStatus) -> None:
    if status != made.status:
        await m.engine.answer_decision(made.namespace, made.name, status)


async def end(m: Means, key: Key, quarantine: Quarantine) -> None:
    """A deleted Quarantine: gives back what was taken, then lets it go."""
    namespace = m.store.namespaces.get(quarantine.namespace)
    if FINALIZER not in quarantine.finalizers:
        return
    if namespace is None or namespace.deleting:
        await m.drop_finalizer(quarantine)  # in a terminating namespace nothing is restored
        return
    status = quarantine.status or QuarantineStatus()
    person = status.release is None or status.release.by != m.store.operator
    if person and not await _reopened(m, quarantine):
        m.engine.mark(key)
        m.queue.at(key, m.now() + timedelta(seconds=5))
        return  # the findings say that they are open again before the proof of the release is gone
    lost = [f"what Quarantine {name}, which is gone, remembered" for name in m.lost(quarantine)]
    kept = [*await give_back(m, quarantine), *lost]
    await records.keep_names(m, quarantine)
    await m.guards.rebuild(quarantine.namespace)
    if is_itself_revoked(quarantine):
        await _gone(m, quarantine)
        return
    kind = quarantine.spec.subject.kind
    note = f"Quarantine {quarantine.name} is released" + (f"; not given back: {', '.join(kept)}" if kept else "")
    m.say_names(key, quarantine.spec.subject.uid, quarantine.spec.findings, events.QUARANTINE_RELEASED, note, "Release")
    if kept:
        log.warning("%s: %s", key, note, extra=about(key))  # whole: an Event is cut
    m.metrics.action(Verdict.RELEASE.value, kind, "verified")
    await _gone(m, quarantine)


async def _gone(m: Means, quarantine: Quarantine) -> None:
    m.given_back.add(quarantine.uid)
    await m.drop_finalizer(quarantine)
    await m.guards.rebuild(quarantine.namespace)


async def give_back(m: Means, quarantine: Quarantine) -> list[str]:
    """Undoes the stages, the last one first. Returns what was not given back, with the reason."""
    return [kept for stage in reversed(WORK) for kept in await WORK[stage].give_back(m, quarantine)]


async def vanished(m: Means, quarantine: Quarantine) -> None:
    """Its finalizer was taken off by hand before we gave back: that is done now. What a further object remembered whose
    Quarantine stands is written down again."""
    first = m.store.quarantines.get((quarantine.namespace, quarantine.spec.continues or ""))
    if first is None or quarantine.status is None:
        await give_back(m, quarantine)
    else:
        await m.continue_in(first, quarantine.name, quarantine.status.pre_images)


async def end_orphan(m: Means, further: Quarantine) -> None:
    """A further object whose Quarantine is gone: what nobody gave back is given back, then it goes too."""
    namespace = m.store.namespaces.get(further.namespace)
    if namespace is not None and not namespace.deleting:
        for kept in await give_back(m, further):
            log.warning("Quarantine %s/%s: not given back: %s", further.namespace, further.name, kept)
    await m.drop_further(further)


async def _reopened(m: Means, quarantine: Quarantine) -> bool:
    """Whether every finding that wanted it says that it is open again, or is not there to say so."""
    for name in quarantine.spec.findings:
        finding = m.store.findings.get((quarantine.namespace, name))
        if finding is None or finding.status is None:
            continue
        if finding.status.phase in (Phase.RESOLVED, Phase.EXCEPTED):
            continue
        if finding.status.released != quarantine.deletion:
            try:
                await m.kube.get(IDENTITY_FINDINGS, name, quarantine.namespace)
            except NotFound:
                continue  # it went with its CRD, which no watch says
            return False
    return True
