"""The same evaluation as the operator's, read once with the reader's own rights, for people and pipelines."""
