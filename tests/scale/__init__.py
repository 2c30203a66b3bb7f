"""The benchmark of DESIGN.md §9: a loaded control plane, a bare client, and the operator beside it."""
