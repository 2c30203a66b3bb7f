"""The command line. Only names and options live here: what a command needs is imported when it runs, so that `--help`
is quick.

Exit statuses: 0 all right, 1 the command did its work but something is not as asked (see the command), 2 wrong usage,
no connection, or a configuration that cannot work; the message then says what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from tenure.settings import Settings

USAGE = 2
_HOME = "tenure-system"  # as tenure.api.names has it, whose package takes a while to import

app = typer.Typer(
    name="tenure",
    help="Governs workload identities: every risk gets an owner, a deadline and a decision.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Output = Literal["table", "json", "csv"]
Listing = Literal["table", "json"]
Switch = Literal["on", "off"]
Level = Literal["debug", "info", "warning", "error"]
Form = Literal["text", "json"]

Kubeconfig = Annotated[
    str | None,
    typer.Option(
        envvar="TENURE_KUBECONFIG",
        metavar="FILE",
        help="Default: $KUBECONFIG, else ~/.kube/config, else the Pod's own ServiceAccount.",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(envvar="TENURE_CONTEXT", metavar="NAME", help="Context of the kubeconfig. Default: its current one."),
]
PlatformNamespaces = Annotated[
    list[str] | None,
    typer.Option(
        envvar="TENURE_PLATFORM_NAMESPACES",
        metavar="NAME,…",
        help="Namespaces graded as the platform's, beside kube-*.",
    ),
]
OperatorNamespace = Annotated[
    str, typer.Option(envvar="TENURE_OPERATOR_NAMESPACE", metavar="NAME", help="Where the operator is installed.")
]
AuditLog = Annotated[
    str | None,
    typer.Option(
        envvar="TENURE_AUDIT_LOG",
        metavar="FILE",
        help="The API server's audit log (JSON lines), for exact use; rotated files beside it are found.",
    ),
]


@app.command()
def run(
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = _HOME,
    service_account: Annotated[
        str,
        typer.Option(
            envvar="TENURE_SERVICE_ACCOUNT",
            metavar="NAME",
            help="Outside the cluster the operator requests this ServiceAccount's token and works with that alone.",
        ),
    ] = "tenure",
    namespaces: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TENURE_NAMESPACES", metavar="NAME,…", help="Observe only these namespaces. Default: all of them."
        ),
    ] = None,
    platform_namespaces: PlatformNamespaces = None,
    enforcement: Annotated[
        Switch,
        typer.Option(envvar="TENURE_ENFORCEMENT", help="off: no act whatever a policy says; guards and clocks stay."),
    ] = "on",
    audit_log: AuditLog = None,
    metrics_address: Annotated[
        str,
        typer.Option(
            envvar="TENURE_METRICS_ADDRESS",
            metavar="HOST:PORT",
            help="Where /metrics, /healthz and /readyz are served.",
        ),
    ] = ":9464",
    metrics_certificate: Annotated[
        str | None,
        typer.Option(
            envvar="TENURE_METRICS_CERTIFICATE",
            metavar="FILE",
            help="Serve them with TLS: the certificate and its chain, PEM. Read again when it is replaced.",
        ),
    ] = None,
    metrics_key: Annotated[
        str | None,
        typer.Option(envvar="TENURE_METRICS_KEY", metavar="FILE", help="The certificate's key, PEM."),
    ] = None,
    log_level: Annotated[
        Level, typer.Option(envvar="TENURE_LOG_LEVEL", help="Of Tenure's own lines; others' begin at info.")
    ] = "info",
    log_format: Annotated[
        Form, typer.Option(envvar="TENURE_LOG_FORMAT", help="One line, or one JSON object.")
    ] = "text",
) -> None:
    """Run the operator until it is told to stop.

    Every option can also be given in the environment, as TENURE_ and its name in capitals; lists are separated by
    commas.
    """
    settings = _settings(
        kubeconfig=kubeconfig,
        context=context,
        operator_namespace=operator_namespace,
        service_account=service_account,
        namespaces=namespaces,
        platform_namespaces=platform_namespaces,
        enforcement=enforcement,
        audit_log=audit_log,
        metrics_address=metrics_address,
        metrics_certificate=metrics_certificate,
        metrics_key=metrics_key,
        log_level=log_level,
        log_format=log_format,
    )
    from tenure.app import main

    main(settings)


def _settings(
    *,
    kubeconfig: str | None,
    context: str | None,
    operator_namespace: str = _HOME,
    platform_namespaces: list[str] | None = None,
    service_account: str = "tenure",
    namespaces: list[str] | None = None,
    enforcement: Switch = "on",
    audit_log: str | None = None,
    metrics_address: str = ":9464",
    metrics_certificate: str | None = None,
    metrics_key: str | None = None,
    log_level: Level = "info",
    log_format: Form = "text",
) -> Settings:
    """Ends the process with the usage status where a value cannot work."""
    from tenure.settings import Settings, SettingsError, names

    try:
        return Settings(
            kubeconfig=kubeconfig or None,
            context=context or None,
            operator_namespace=operator_namespace,
            service_account=service_account,
            namespaces=names(namespaces or ()),
            platform_namespaces=names(platform_namespaces or ()),
            enforcement=enforcement == "on",
            audit_log=audit_log or None,
            metrics_address=metrics_address,
            metrics_certificate=metrics_certificate or None,
            metrics_key=metrics_key or None,
            log_level=log_level,
            log_format=log_format,
        )
    except SettingsError as error:
        _fail(str(error))


@app.command()
def inventory(
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only this namespace. Default: all.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = "table",
    platform: Annotated[bool, typer.Option("--platform", help="Show platform identities too.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    platform_namespaces: PlatformNamespaces = None,
    operator_namespace: OperatorNamespace = _HOME,
    audit_log: AuditLog = None,
) -> None:
    """Show every workload identity: owner and why, credentials, entitlements, exceptions, open findings.

    Lists once, with your own rights and without the operator, and evaluates with the operator's own rules. What you may
    not see is named in the output, and the exit status is then 1.
    """
    from tenure.report.command import show
    from tenure.report.connection import Failure

    settings = _settings(
        kubeconfig=kubeconfig,
        context=context,
        operator_namespace=operator_namespace,
        platform_namespaces=platform_namespaces,
        audit_log=audit_log,
    )
    try:
        status = show(settings, namespace or None, output, platform, sys.stdout)
    except Failure as error:
        _fail(str(error))
    raise typer.Exit(status)


@app.command()
def pending(
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only this namespace. Default: all.")
    ] = None,
    mine: Annotated[
        bool, typer.Option("--mine", help="Only what you may decide, according to the API server.")
    ] = False,
    output: Annotated[Listing, typer.Option("--output", "-o", help="How to print it.")] = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """List what waits for a decision, the most urgent first, each with the command that decides it.

    Findings that nobody has decided, exceptions without their approvals, reviews that are due, quarantines. Works with
    your own rights alone; what you may not see is named, and the exit status is then 1.
    """
    from tenure.report.command import list_pending
    from tenure.report.connection import Failure

    settings = _settings(kubeconfig=kubeconfig, context=context)
    try:
        status = list_pending(settings, namespace or None, mine, output, sys.stdout)
    except Failure as error:
        _fail(str(error))
    raise typer.Exit(status)


_SHOWN_FIRST = (
    "Shows what is decided, asks, and writes an IdentityDecision about the state that was shown, in your name and with "
    "your rights. Exit status 1: refused, void, or not taken up by the operator in time."
)

Target = Annotated[
    str,
    typer.Argument(metavar="KIND/NAME", help="Such as identityexception/ci-token, idex/ci-token, idf/unowned-3f9c."),
]
InNamespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Where it lives.")]
WhyDecided = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stands in the ledger.")]
VerbUsed = Annotated[
    str | None,
    typer.Option(
        "--verb", metavar="VERB", help="The right to use, such as approve-security. Default: the command's word."
    ),
]
OnlyPrint = Annotated[bool, typer.Option("--print", help="Write the decision as YAML to stdout, and make none.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Timeout = Annotated[
    float, typer.Option(min=0, max=86_400, metavar="SECONDS", help="How long to wait for the effect; 0: not at all.")
]


def _deciding(verdict: str) -> Callable[..., None]:
    """The command that gives this verdict; they differ in nothing else."""

    def command(
        target: Target,
        namespace: InNamespace,
        reason: WhyDecided,
        verb: VerbUsed = None,
        only_print: OnlyPrint = False,
        yes: Yes = False,
        timeout: Timeout = 30.0,
        kubeconfig: Kubeconfig = None,
        context: Context = None,
    ) -> None:
        _decide(verdict, target, namespace, reason, verb, only_print, yes, timeout, kubeconfig, context)

    return command


for _verdict, _summary in (
    ("Approve", "Approve an exception: its waiver begins once everybody who must agree has done so."),
    ("Reject", "Reject an exception, or withdraw one that is active."),
    ("Attest", "Attest that a claim or an exception still holds: its review starts anew."),
    ("Quarantine", "Quarantine what a finding is about, now: a loss of use that can be undone."),
    ("Revoke", "Revoke what a finding is about, for good."),
):
    app.command(_verdict.lower(), help=f"{_summary}\n\n{_SHOWN_FIRST}")(_deciding(_verdict))


@app.command(help=f"Release a quarantine, or all of them: what was taken is given back.\n\n{_SHOWN_FIRST}")
def release(
    reason: WhyDecided,
    target: Annotated[
        str | None, typer.Argument(metavar="KIND/NAME", help="Such as quarantine/serviceaccount-ci-6d0f1a.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Where it lives; with --all: only there.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every quarantine, for the bad night; one that fails stops no other.")
    ] = False,
    verb: VerbUsed = None,
    only_print: OnlyPrint = False,
    yes: Yes = False,
    timeout: Timeout = 30.0,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    from tenure.report.connection import Failure
    from tenure.report.release_all import Everything, release_all

    if not everything:
        if target is None or namespace is None:
            _fail("release takes KIND/NAME and -n NAMESPACE, or --all.")
        _decide("Release", target, namespace, reason, verb, only_print, yes, timeout, kubeconfig, context)
    if target is not None or only_print:
        _fail("--all takes neither KIND/NAME nor --print.")
    asked = Everything(namespace=namespace or "", reason=reason, verb=verb or "release", yes=yes, timeout=timeout)
    try:
        status = release_all(_settings(kubeconfig=kubeconfig, context=context), asked, _asker())
    except Failure as error:
        _fail(str(error))
    raise typer.Exit(status)


def _asker() -> Callable[[str], str] | None:
    """Asks whoever sits at the terminal; None where nobody does."""
    return input if sys.stdin.isatty() and sys.stdout.isatty() else None


def _decide(
    verdict: str,
    target: str,
    namespace: str,
    reason: str,
    verb: str | None,
    only_print: bool,
    yes: bool,
    timeout: float,
    kubeconfig: str | None,
    context: str | None,
) -> NoReturn:
    from tenure.api.names import Verdict
    from tenure.report.connection import Failure
    from tenure.report.decide import Order, decide

    settings = _settings(kubeconfig=kubeconfig, context=context)
    order = Order(
        verdict=Verdict(verdict),
        target=target,
        namespace=namespace,
        reason=reason,
        verb=verb or "",
        only_print=only_print,
        yes=yes,
        timeout=timeout,
    )
    try:
        status = decide(settings, order, _asker())
    except Failure as error:
        _fail(str(error))
    raise typer.Exit(status)


Wait = Annotated[float, typer.Option(min=1, max=86_400, metavar="SECONDS", help="How long each step may take.")]


@app.command()
def check(
    namespace: InNamespace,
    timeout: Wait = 120.0,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = _HOME,
) -> None:
    """See the operator at work: an identity that nobody owns appears there, is found, and goes again.

    What `helm test` runs. Needs to create and delete ServiceAccounts there, and to read findings. Exit status 2: it was
    not found in time.
    """
    from tenure.report.check import check
    from tenure.report.connection import Failure

    try:
        check(
            _settings(kubeconfig=kubeconfig, context=context, operator_namespace=operator_namespace), namespace, timeout
        )
    except Failure as error:
        _fail(str(error))


@app.command()
def leave(
    policies: Annotated[
        list[str], typer.Option("--policies", metavar="NAME,…", help="The admission policies to take off.")
    ],
    timeout: Wait = 120.0,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = _HOME,
) -> None:
    """Prepare an uninstallation: the operator ends, policies and finalizers come off; nothing is released.

    What the chart's hook runs before `helm uninstall`. Says what stays out of use.
    """
    from tenure.report.connection import Failure
    from tenure.report.leave import leave
    from tenure.settings import names

    try:
        leave(
            _settings(kubeconfig=kubeconfig, context=context, operator_namespace=operator_namespace),
            names(policies),
            timeout,
        )
    except Failure as error:
        _fail(str(error))


@app.command()
def version() -> None:
    """Print the version."""
    from tenure import __version__

    print(__version__)


def _fail(message: str) -> NoReturn:
    print(f"tenure: {message}", file=sys.stderr)
    raise typer.Exit(USAGE)
