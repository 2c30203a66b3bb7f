"""The user's own connection to the API server, and what to do when it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tenure.kube.client import Kube
from tenure.kube.errors import ApiError, ConfigurationError, Unauthorized, Unreachable
from tenure.settings import Settings


class Failure(Exception):
    """Nothing could be done; the text says why and what to do."""


async def connect(settings: Settings) -> Kube:
    """A client with the user's own rights; sends nothing yet. Raises Failure."""
    try:
        return await Kube.connect(settings.kubeconfig, settings.context)
    except ConfigurationError as error:
        raise Failure(f"{error}. Name a kubeconfig with --kubeconfig or KUBECONFIG.") from error


@contextmanager
def explained(server: str) -> Iterator[None]:
    """Turns every error of a request that is not handled within into a Failure."""
    try:
        yield
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    except Unauthorized as error:
        raise Failure(
            f"{server} does not accept the credentials ({error}). Log in again, or use another --context."
        ) from error
    except Unreachable as error:
        raise Failure(f"{server} does not answer ({error}). Is this the right --context?") from error
    except ApiError as error:
        raise Failure(str(error)) from error
