"""Tests, and what they stand on: `support` (control plane, cluster, proxy, operator)."""
