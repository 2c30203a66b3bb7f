"""What to change instead of an object that somebody writes back: the source, named."""

from __future__ import annotations

from tenure.model.records import ManagedBy

_LEVERS = {
    "ArgoCD": "Remove it from the source of Application {name}: a sync writes it back.",
    "Flux": "Remove it from the source of {name}: the next reconciliation writes it back.",
    "Helm": "Remove it from the chart or values of release {name}: the next upgrade writes it back.",
    "CertManager": "Delete Certificate {name}: while it exists, the Secret is issued again.",
    "ExternalSecrets": "Delete ExternalSecret {name}, or what it fetches: while both exist, the Secret is written.",
    "SealedSecrets": "Delete SealedSecret {name}: while it exists, the Secret is unsealed again.",
    "VaultSecretsOperator": "Delete {name} of the Vault Secrets Operator: while it exists, the Secret is synced again.",
    "SecretsStoreCSI": "Remove it from the secretObjects of its SecretProviderClass: a mounting pod writes it again.",
    "TokenController": "Delete it: it is filled again when it is emptied, and nobody makes it again when it is gone.",
    "Controller": "Delete or change {name}, its controlling owner, which may write it back.",
}
"""By product: the change at the source that lasts."""
_SOURCES = {
    "ArgoCD": "the source of Application {name}",
    "Flux": "the source of {name}",
    "Helm": "the chart or values of release {name}",
    "CertManager": "the secretTemplate of Certificate {name}",
    "ExternalSecrets": "the target template of ExternalSecret {name}",
    "SealedSecrets": "the template of SealedSecret {name}",
    "VaultSecretsOperator": "the destination of {name} of the Vault Secrets Operator",
    "SecretsStoreCSI": "the secretObjects of its SecretProviderClass",
    "Controller": "{name}, its controlling owner",
}
"""By product: where to say what the object is to look like."""


def lever(managed: ManagedBy) -> str:
    """One line: the change that lasts; "" for a manager that is not known."""
    return _LEVERS.get(managed.manager, "").format(name=_named(managed))


def _named(managed: ManagedBy) -> str:
    return f"{managed.kind} {managed.name or '(unnamed)'}".strip()


_PRODUCTS = {
    "argocd-controller": "ArgoCD",
    "helm": "Helm",
    "helm-controller": "Flux",
    "kustomize-controller": "Flux",
}


def product(writer: str) -> str:
    """The product behind a field manager, "" for one that is not known."""
    return _PRODUCTS.get(writer, "")


def commit(want: str, managed: ManagedBy | None, writer: str) -> str:
    """One line: where to commit what, so that it is not taken back again. `writer` is the field manager."""
    source = _SOURCES.get(managed.manager, "").format(name=_named(managed)) if managed else ""
    return f"Commit to {source or f'what {writer} applies'}: {want}"
