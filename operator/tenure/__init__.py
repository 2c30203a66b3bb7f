"""Tenure governs workload identities: every risk gets an owner, a deadline and a decision (see README.md)."""

__version__ = "0.1.0"
