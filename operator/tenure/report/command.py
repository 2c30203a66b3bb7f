"""`tenure inventory`: connect, look once, judge, print."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TextIO

from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, ConfigurationError, NotFound, Unauthorized, Unreachable
from tenure.report import render
from tenure.report.collect import Collected, collect
from tenure.report.inventory import report
from tenure.settings import Settings

COMPLETE = 0
INCOMPLETE = 1


class Failure(Exception):
    """Nothing could be shown; the text says why and what to do."""


def show(settings: Settings, namespace: str | None, output: str, platform: bool, out: TextIO) -> int:
    """The exit status: COMPLETE, or INCOMPLETE when something could not be seen. Raises Failure."""
    seen = asyncio.run(_look(settings, namespace))
    found = report(seen, namespace, settings)
    try:
        render.write(found, output, out, platform=platform)
        out.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. What is still buffered must not fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if output != "table":
        for gap in found.gaps:
            print(f"tenure: {gap.why}: {gap.unknown}", file=sys.stderr)
    return COMPLETE if found.complete else INCOMPLETE


async def _look(settings: Settings, namespace: str | None) -> Collected:
    try:
        kube = await Kube.connect(settings.kubeconfig, settings.context)
    except ConfigurationError as error:
        raise Failure(f"{error}. Name a kubeconfig with --kubeconfig or KUBECONFIG.") from error
    try:
        return await collect(kube, namespace)
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    except Unauthorized as error:
        raise Failure(
            f"{kube.server} does not accept the credentials ({error}). Log in again, or use another --context."
        ) from error
    except Unreachable as error:
        raise Failure(f"{kube.server} does not answer ({error}). Is this the right --context?") from error
    except NotFound as error:
        raise Failure(f"there is no namespace {namespace}.") from error
    except ApiError as error:
        raise Failure(str(error)) from error
    finally:
        await kube.close()
