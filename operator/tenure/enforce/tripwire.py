"""The tripwire by instant: what an audit source tells of use while a Quarantine stands.

The API server's label tells of attempts by day (tenure.enforce.stages); an audit log tells of each, and by whom, but
for one: a request with a token that is switched off leaves an event without any user. Its first of a day is told by the
stamp that the API server writes then, within that very request; the later ones of the day are not told from others'.

Nothing of the log is kept but a position, and that is never past an attempt that its Quarantine does not say yet: a
crash repeats, and loses nothing. What is repeated is known again by its instant.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from tenure.api.names import TYPE_SERVICE_ACCOUNT_TOKEN
from tenure.api.quarantine import AttemptedUse, QuarantineStatus
from tenure.audit.source import Source
from tenure.decide.hold import Quarantine
from tenure.decide.wish import Wish
from tenure.enforce.means import Means
from tenure.enforce.quarantine import stands, subject_of
from tenure.inventory.usage import secret_read
from tenure.kube.errors import ApiError
from tenure.model.keys import Key
from tenure.model.usage import Request
from tenure.telemetry import events

log = logging.getLogger(__name__)

PERIOD: Final = 0.5
"""Seconds between two looks at the source."""
CALM: Final = timedelta(minutes=1)
"""Between two writes about attempts on one Quarantine: an identity whose pods run on attempts many a second."""
KEPT: Final = 64 << 20
"""Bytes after which the position is stored: what a restart reads again at most, in a few seconds."""
_STALE: Final = timedelta(minutes=3)
"""Without a complete look for so long the source counts as stale."""
_MOMENT: Final = timedelta(seconds=1)
"""A stamp's own request ends, and is logged, right after it."""
_KNOWN: Final = 10_000
"""Attempts that are known again when the source repeats them."""
_API_SERVER: Final = "system:apiserver"


@dataclass(slots=True)
class _Heard:
    """Attempts on one Quarantine that it does not say yet. `before` is the position from which they are read again."""

    last: AttemptedUse
    number: int
    before: str
    since: datetime
    stamped: bool
    """The last is a stamp's: of a token that is switched off."""
    candidates: int = 0
    """Requests within which the stamp was written: with one of them it is known whose it was."""


class _Standing:
    """The Quarantines that stand, by what tells of a use: made anew for each batch, so that a request costs the same
    however many there are. One that comes later is about later requests."""

    def __init__(self, quarantines: Iterable[Quarantine]) -> None:
        self._named: dict[tuple[str, str], Quarantine] = {}
        self._about: dict[tuple[str, str, str], list[Quarantine]] = {}
        self._off: dict[tuple[str, str], list[Quarantine]] = {}
        for quarantine in quarantines:
            if not stands(quarantine):
                continue
            place, subject = quarantine.namespace, quarantine.spec.subject
            self._named[place, quarantine.name] = quarantine
            self._about.setdefault((subject.kind, place, subject.name), []).append(quarantine)
            for token in quarantine.status.disabled_tokens if quarantine.status else ():
                if token.off:
                    self._off.setdefault((place, token.name), []).append(quarantine)

    def attempted(self, request: Request, read: str) -> list[tuple[Quarantine, bool]]:
        """Those whose subject the request attempts to use, each with whether it is a stamp that tells it. `read` is the
        uid of the Secret, no token's, that it read."""
        found = {q.uid: (q, stamped) for q, stamped in self._candidates(request, read)}
        return [(q, stamped) for q, stamped in found.values() if request.received >= q.created]

    def _candidates(self, request: Request, read: str) -> Iterable[tuple[Quarantine, bool]]:
        if request.quarantine and (named := self._named.get(request.quarantine)):
            yield named, False
        if (account := request.account) is not None:
            for quarantine in self._about.get(("ServiceAccount", *account), ()):
                if request.uid in ("", quarantine.spec.subject.uid):
                    yield quarantine, False
            for quarantine in self._about.get(("Secret", account[0], request.secret), ()):
                if quarantine.spec.subject.type in (None, TYPE_SERVICE_ACCOUNT_TOKEN):
                    yield quarantine, False
        if read:
            for quarantine in self._about.get(("Secret", request.namespace, request.name), ()):
                if quarantine.spec.subject.uid == read:
                    yield quarantine, False
        # The API server writes the day of a token's first use: of one that is off, of a refused one.
        if (request.requester, request.verb, request.resource) == (_API_SERVER, "patch", "secrets"):
            for quarantine in self._off.get((request.namespace, request.name), ()):
                if request.code < 300:
                    yield quarantine, True


class Tripwire:
    """One loop reads; the worker of enforcement writes (`note`), since it alone writes to Quarantines."""

    def __init__(self, means: Means, source: Source) -> None:
        self._means = means
        self._source = source
        self._position = means.ledger.audit
        self._started = means.now()
        self._known: OrderedDict[tuple[str, datetime], None] = OrderedDict()
        self._heard: dict[str, _Heard] = {}
        self._stamps: deque[tuple[str, Request]] = deque(maxlen=64)
        self._written: dict[str, datetime] = {}
        self._reading = asyncio.Lock()
        self._fault = "it was not read yet"
        self._looked: datetime | None = None
        self._size = 0 if self._position else KEPT
        """Bytes read since the position was stored; the first one is stored at once."""

    # --- reading -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follows the source until it is cancelled."""
        while True:
            await self.read()
            await self._remember()
            await asyncio.sleep(PERIOD)

    async def read(self) -> str:
        """Takes in everything there is now; why that could not be done, "" when it was."""
        async with self._reading:
            try:
                await self._read()
                fault = ""
            except OSError as error:
                fault = f"the audit log cannot be read: {error}"
            except Exception as error:  # a defect in reading must neither end the reading nor let a revocation pass
                fault = f"the audit log cannot be read: {type(error).__name__}: {error}"
            if fault and fault != self._fault:
                log.error("%s; trying again until it works. Nothing is revoked meanwhile", fault)
            elif self._fault and not fault:
                log.info("the audit log is read up to now")
            self._fault = fault
            if not fault:
                self._looked = self._means.now()
            return fault

    async def _read(self) -> None:
        while True:
            batch = await asyncio.to_thread(self._source.read, self._position)
            if batch.lost:
                log.warning("audit log: %s: uses may be missing", batch.lost)
            if batch.malformed:
                log.warning("audit log: %d lines are no audit events", batch.malformed)
            standing = _Standing(self._means.store.quarantines.values() if batch.requests else ())
            for index, request in enumerate(batch.requests):
                self._means.store.usage.note(request, self._means.store)
                self._take(request, standing)
                if index % 500 == 499:
                    await asyncio.sleep(0)
            self._size += batch.size
            again = self._position == batch.position
            self._position = batch.position
            self._settle()
            if again or not batch.more:
                return

    def state(self) -> str:
        """Fresh, Stale (not read to its end for long) or Missing (never), for the metric."""
        if self._looked is None:
            return "Missing"
        return "Fresh" if self._means.now() - self._looked <= _STALE else "Stale"

    def _settle(self) -> None:
        """The position that may be stored: before the oldest attempt that no Quarantine says yet."""
        standing = {q.uid for q in self._means.store.quarantines.values() if stands(q)} if self._heard else set()
        for uid in [uid for uid in self._heard if uid not in standing]:
            del self._heard[uid]
        # In the order in which they were heard: the first is the oldest.
        self._means.ledger.audit = next(iter(self._heard.values())).before if self._heard else self._position

    async def _remember(self) -> None:
        """Stores the position where much was read since; whatever else is stored takes it along anyway."""
        if self._size < KEPT:
            return
        self._size = 0
        self._means.ledger.remember_audit()
        try:
            await self._means.ledger.flush()
        except ApiError as error:
            log.warning("the position in the audit log is not stored: %s", error)

    # --- attempts ----------------------------------------------------------------------------------------------

    def _take(self, request: Request, standing: _Standing) -> None:
        if request.requester == self._means.store.operator or (request.id, request.received) in self._known:
            return
        if not request.user and request.code == 401:
            self._name(request)
        read = secret_read(request, self._means.store)
        for quarantine, stamped in standing.attempted(request, read.uid if read else ""):
            self._known[request.id, request.received] = None
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            self._hear(quarantine, request, stamped)

    def _hear(self, quarantine: Quarantine, request: Request, stamped: bool) -> None:
        at = request.received.replace(microsecond=0)
        said = quarantine.status.last_attempt if quarantine.status else None
        if said is not None and at <= said and request.received < self._started:
            return  # read again after a restart
        if stamped:
            attempt = AttemptedUse(at=at, what=f"a token that is switched off, of Secret {request.name}: 401")
            self._stamps.append((quarantine.uid, request))
        else:
            refused = "refused by admission" if request.quarantine else request.code or "no answer"
            attempt = AttemptedUse(
                at=at,
                by=request.by,
                source=request.source,
                user_agent=request.agent,
                what=f"{request.what}: {refused}",
            )
        heard = self._heard.get(quarantine.uid)
        if heard is None:
            heard = self._heard[quarantine.uid] = _Heard(attempt, 0, self._position, self._means.now(), stamped)
        heard.number += 1
        if attempt.at >= heard.last.at:
            heard.last, heard.stamped, heard.candidates = attempt, stamped, 0
        self._means.consider(subject_of(quarantine))

    def _name(self, request: Request) -> None:
        """A refused request: where a stamp was written within it, and within no other, it was the one."""
        for uid, stamp in self._stamps:
            heard = self._heard.get(uid)
            within = request.received <= stamp.received and stamp.ended <= request.ended
            if heard is None or not within or not heard.stamped:
                continue
            if heard.last.at != stamp.received.replace(microsecond=0):
                continue
            heard.candidates += 1
            known = heard.candidates == 1
            heard.last = heard.last.model_copy(
                update={"source": request.source if known else "", "user_agent": request.agent if known else ""}
            )

    # --- what the worker of enforcement does ---------------------------------------------------------------------

    def last(self, quarantine: Quarantine) -> datetime | None:
        """When use was last attempted, as far as it is known, whether written down yet or not."""
        heard = self._heard.get(quarantine.uid)
        said = quarantine.status.last_attempt if quarantine.status else None
        return max((at for at in (said, heard.last.at if heard else None) if at is not None), default=None)

    async def note(self, key: Key, quarantine: Quarantine, wishes: tuple[Wish, ...]) -> Quarantine:
        """Writes down what was heard, then counts and tells it. Raises ApiError; then it is still to be written."""
        m, current = self._means, self._heard.get(quarantine.uid)
        if current is None:
            return quarantine
        heard = replace(current)  # as it is now: more may be heard while it is written
        now = m.now()
        waits = [self._written.get(quarantine.uid, now - CALM) + CALM]
        if heard.stamped and not heard.candidates:
            waits.append(heard.since + _MOMENT)
        if max(waits) > now:
            m.queue.at(key, max(waits))
            return quarantine
        status = quarantine.status or QuarantineStatus()
        said = status.last_attempt
        # The label, which the watch may bring first, told of the same attempt by its day.
        by_day = heard.stamped and said is not None and said == _midnight(said) == _midnight(heard.last.at)
        if said is None or heard.last.at >= said:
            status = status.model_copy(update={"last_attempt": heard.last.at, "attempt": heard.last})
            quarantine = await m.write_status(quarantine, status)
        current.number -= heard.number
        if not current.number:
            self._heard.pop(quarantine.uid, None)
        self._written = {uid: at for uid, at in self._written.items() if at > now - CALM} | {quarantine.uid: now}
        number = heard.number - by_day
        if number:
            m.metrics.tripwire(number)
            note = _told(quarantine, heard)
            m.say(key, quarantine.spec.subject.uid, wishes, events.TRIPWIRE, note, "Quarantine", warning=True)
        return quarantine


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _told(quarantine: Quarantine, heard: _Heard) -> str:
    last, subject = heard.last, quarantine.spec.subject
    who = ", ".join(part for part in (last.by, last.source, last.user_agent) if part) or "unknown"
    times = f" ({heard.number} times)" if heard.number > 1 else ""
    at = last.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"{subject.kind} {subject.name} under Quarantine {quarantine.name} is alive: use was attempted at {at}{times}: "
        f"{last.what}. By: {who}."
    )
