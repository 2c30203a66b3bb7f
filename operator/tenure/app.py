"""The composition root: settings, connection, inventory, loop, enforcement, Kopf. Nothing happens at import time."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import kopf

from tenure.api.exception import IdentityExceptionSpec, IdentityExceptionStatus
from tenure.api.finding import IdentityFindingSpec, IdentityFindingStatus
from tenure.api.quarantine import QuarantineSpec, QuarantineStatus
from tenure.audit.file import AuditFile
from tenure.enforce.enforcer import Enforcer
from tenure.enforce.proof import PROVEN
from tenure.handlers.apart import Apart
from tenure.handlers.authored import registry
from tenure.inventory.sources import Informers, calm_collector, set_inventory_aside
from tenure.inventory.store import Store
from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, ConfigurationError, Forbidden, NotFound
from tenure.model.keys import Key
from tenure.model.records import Authored
from tenure.reconcile.engine import Engine
from tenure.reconcile.judge import Judge
from tenure.reconcile.ledger import Ledger
from tenure.rights import missing
from tenure.settings import Settings, SettingsError
from tenure.telemetry import health, logs
from tenure.telemetry.events import Recorder
from tenure.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

TOKEN_SECONDS = 3600
"""Life of the token the operator requests for itself outside the cluster; renewed at 80 % of it."""
STALE_AFTER = timedelta(minutes=3)
"""An informer without list, event or bookmark for this long is not fresh: the API server sends a bookmark a minute."""
STUCK_AFTER = 30.0
"""Seconds without a turn of the loop after which the process is not alive."""
_LONGEST_PAUSE = 30.0
AUDIT_LOG = "audit-log"
"""The name of the audit log among the inventory sources that a policy expects."""


def main(settings: Settings) -> None:
    """Runs the operator until SIGTERM or SIGINT. Ends the process with status 2 without a usable configuration."""
    logs.configure(settings.log_level, settings.log_format)
    calm_collector()
    try:
        asyncio.run(Operator(settings).run())
    except (ConfigurationError, SettingsError) as error:
        print(f"tenure: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        print(f"tenure: cannot listen on {settings.metrics_address}: {error}", file=sys.stderr)
        sys.exit(2)


async def _stop_all(parts: list[Any]) -> None:
    """Ends them, the last started first; the list is empty afterwards."""
    while parts:
        part = parts.pop()
        stop = getattr(part, "stop", None) or part.close
        await stop()


class View:
    """What the metrics read of the running operator (telemetry.observed.Observed)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.informers: Informers | None = None
        self.ledger: Ledger | None = None
        self.engine: Engine | None = None
        self.enforcer: Enforcer | None = None
        self.now: Callable[[], datetime] | None = None

    def findings(self) -> Iterable[Authored[IdentityFindingSpec, IdentityFindingStatus]]:
        return self._store.findings.values()

    def exceptions(self) -> Iterable[Authored[IdentityExceptionSpec, IdentityExceptionStatus]]:
        return self._store.exceptions.values()

    def quarantines(self) -> Iterable[Authored[QuarantineSpec, QuarantineStatus]]:
        return self._store.quarantines.values()

    def totals(self) -> Mapping[str, Mapping[tuple[str, ...], int]] | None:
        return self.ledger.counters if self.ledger else None

    def reviews(self) -> Mapping[str, int]:
        return self.engine.reviews() if self.engine else {}

    def queue(self) -> Mapping[str, int]:
        return self.enforcer.queue() if self.enforcer else {}

    def effective(self) -> Mapping[str, int]:
        return self.enforcer.effective() if self.enforcer else {stage.value: 0 for stage in PROVEN}

    def last_sync(self) -> Mapping[str, datetime]:
        if self.informers is None:
            return {}
        return {kind: at for kind, at in self.informers.last_sync.items() if at is not None}

    def sources(self) -> Mapping[str, int]:
        """The cluster itself is one expected source, the audit log, where one is followed, another; further ones that
        policies expect have no way to report yet."""
        expected = {s.name for p in self._store.policies.values() for s in p.spec.inventory.expected_sources}
        state = (
            "Missing"
            if self.informers is None or not self.informers.synced
            else "Fresh"
            if not self.stale()
            else "Stale"
        )
        tripwire = self.enforcer.tripwire if self.enforcer else None
        if tripwire is not None:
            expected.discard(AUDIT_LOG)
        counts = {"Fresh": 0, "Stale": 0, "Missing": len(expected)}
        counts[state] += 1
        if tripwire is not None:
            counts[tripwire.state()] += 1
        return counts

    def stale(self) -> str:
        """Why the inventory is not fresh, "" when it is."""
        if self.informers is None or self.now is None:
            return "it was not read yet"
        for kind, text in self.informers.failing.items():
            return f"{kind}: {text}"
        now = self.now()
        for kind, last in self.informers.last_sync.items():
            if last is None or now - last > STALE_AFTER:
                return f"{kind}: no word from the API server for {STALE_AFTER}"
        return ""


class Operator:
    """One running installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings.operator_namespace)
        self._view = View(self._store)
        self._metrics = Metrics(observed=self._view)
        self._informers: Informers | None = None
        self._engine: Engine | None = None
        self._state = "connecting to the API server"
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Raises ConfigurationError or SettingsError without a usable configuration, OSError when the metrics' port is
        taken."""
        settings = self._settings
        certificate = None
        if settings.metrics_certificate is not None and settings.metrics_key is not None:
            certificate = health.Certificate(Path(settings.metrics_certificate), Path(settings.metrics_key))
        self._catch_signals()
        person = await Kube.connect(settings.kubeconfig, settings.context)
        server = await health.serve(settings.metrics_address, self._metrics, self._alive, self._ready, certificate)
        log.info("metrics, healthz and readyz on %s%s", server.address, ", with TLS" if certificate else "")
        parts: list[Any] = []
        try:
            work = asyncio.create_task(self._work(person, parts))
            ended = asyncio.create_task(self._stop.wait())
            done, _ = await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            # What acts stops at once; Kopf takes some seconds to end.
            log.info("stopping")
            await _stop_all(parts)
            for task in (work, ended):
                task.cancel()
            await asyncio.gather(work, ended, return_exceptions=True)
            if work in done and not work.cancelled() and work.exception() is not None:
                raise work.exception()  # type: ignore[misc]
        finally:
            await _stop_all(parts)
            await server.stop()
            await person.close()

    async def _work(self, person: Kube, parts: list[Any]) -> None:
        settings = self._settings
        kube = await self._patiently("connect as the operator", lambda: self._as_operator(person))
        if kube is not person:
            parts.append(kube)
        ledger = Ledger(kube, settings.operator_namespace)
        self._view.now = kube.clock.now
        informers = Informers(kube, self._store, namespaces=settings.namespaces)
        self._informers = self._view.informers = informers
        parts.append(informers)
        self._state = "reading the inventory"
        informers.start()
        # Side by side: what is missing is named, whatever else waits for want of it.
        await asyncio.gather(
            self._patiently("read the installation's memory", ledger.load),
            self._patiently("ask for its own rights", lambda: self._name_missing_rights(kube), shown=False),
        )
        self._view.ledger = ledger
        await informers.wait_synced()
        set_inventory_aside()
        log.info("inventory complete: %s", ", ".join(f"{kind} {count}" for kind, count in self._store.counts().items()))

        recorder = Recorder(kube, now=kube.clock.now)
        recorder.start()
        parts.append(recorder)
        judge = Judge(self._store, ledger, settings, enforcement=settings.enforcement)
        engine = Engine(kube, self._store, ledger, judge, self._metrics, recorder, observed=settings.namespaces)
        enforcer = Enforcer(
            kube,
            self._store,
            ledger,
            engine,
            self._metrics,
            recorder,
            operator_namespace=settings.operator_namespace,
            observed=settings.namespaces,
            platform=settings.platform_namespaces,
            fresh=self._view.stale,
            audit=AuditFile(Path(settings.audit_log)) if settings.audit_log else None,
        )
        engine.enforcement = enforcer
        self._view.engine = engine
        self._view.enforcer = enforcer
        await self._patiently("look at the kinds", enforcer.look_at_kinds)
        self._state = "recording the first complete inventory"
        await self._patiently("record the first complete inventory", engine.start)
        self._engine = engine
        parts.append(engine)
        enforcer.start()
        parts.append(enforcer)
        self._state = ""
        log.info("governing%s", "" if settings.enforcement else " (enforcement is off: nothing will be acted on)")
        await self._kopf(kube, engine)

    # --- connection ----------------------------------------------------------------------------------------------

    async def _as_operator(self, person: Kube) -> Kube:
        """The connection as the operator's own ServiceAccount: the one given when it is that already (in the cluster),
        else one that works with a requested token, so that no more rights than its own are ever used."""
        settings = self._settings
        own = f"system:serviceaccount:{settings.operator_namespace}:{settings.service_account}"
        user = await person.self_user()
        if user == own:
            return person

        async def token() -> str:
            issued, _ = await person.request_token(settings.operator_namespace, settings.service_account, TOKEN_SECONDS)
            return issued

        try:
            await token()
        except NotFound as error:
            raise ApiError(
                error.status,
                error.reason,
                f"ServiceAccount {settings.operator_namespace}/{settings.service_account} does not exist: "
                "install Tenure first (make install)",
            ) from error
        except Forbidden as error:
            raise ApiError(
                error.status,
                error.reason,
                f"missing right: create serviceaccounts/token {settings.service_account} in namespace "
                f"{settings.operator_namespace}, for {user} ({error})",
            ) from error
        log.info("connected to %s as %s; working as %s", person.server, user, own)
        return person.as_token(token)

    async def _name_missing_rights(self, kube: Kube) -> None:
        for right in await missing(kube, self._settings.operator_namespace, self._settings.namespaces):
            log.error("missing right: %s (needed for %s): see deploy/60-rbac.yaml", right, right.needed_for)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]], *, shown: bool = True) -> T:
        """Tries until it works: an API server that is away, or a right that is missing, is waited for. Each new reason
        is logged once and, where shown, stands in /readyz."""
        pause, said = 0.25, ""
        while True:
            try:
                return await attempt()
            except ApiError as error:
                text = f"cannot {what}: {error}"
            except ValueError as error:
                text = f"cannot {what}: {error}"
            if shown:
                self._state = text
            if text != said:
                log.error("%s; trying again until it works", text)
                said = text
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    # --- Kopf ----------------------------------------------------------------------------------------------------

    async def _kopf(self, kube: Kube, engine: Engine) -> None:
        """Runs Kopf until the process is told to stop, apart from everything of ours (handlers.apart says why). Kopf
        ends on errors that a long-lived operator must survive (an in-stream error, a CRD that goes, a 403 for longer
        than its patience): it is then started anew; nothing of ours depends on it."""
        settings = self._settings
        loop, pause = asyncio.get_running_loop(), 1.0

        def mark(key: Key) -> None:
            loop.call_soon_threadsafe(engine.mark, key)

        async def login() -> kopf.ConnectionInfo:
            connection = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(kube.connection(), loop))
            return kopf.ConnectionInfo(
                server=connection.server,
                ca_path=connection.ca_file,
                ca_data=connection.ca_data,
                insecure=connection.insecure,
                scheme=connection.scheme,
                token=connection.token,
                certificate_path=connection.certificate_file,
                private_key_path=connection.key_file,
                expiration=connection.expires,
            )

        async def operate(end: asyncio.Event) -> None:
            await kopf.operator(
                registry=registry(mark, login),
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces or (),
                standalone=True,
                stop_flag=end,
            )

        while not self._stop.is_set():
            running = Apart(operate, "kopf")
            try:
                await running.wait()
                log.warning("Kopf ended; it is started anew in %.0f s", pause)
            except Exception as error:
                log.warning("Kopf ended (%s: %s); it is started anew in %.0f s", type(error).__name__, error, pause)
            finally:
                await running.stop()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    # --- probes --------------------------------------------------------------------------------------------------

    def _alive(self) -> str | None:
        if self._engine is None or self._informers is None or self._view.enforcer is None:
            return None
        return self._engine.stuck(STUCK_AFTER) or self._view.enforcer.ended() or self._informers.ended()

    def _ready(self) -> str | None:
        if self._informers is not None and not self._informers.synced:
            failing = "; ".join(self._informers.failing.values())
            waiting = ", ".join(self._informers.unsynced)
            return f"not synced: {waiting}" + (f" ({failing})" if failing else "")
        return self._state or None
