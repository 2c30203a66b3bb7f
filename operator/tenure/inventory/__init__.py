"""What the cluster holds, trimmed: projections of raw objects, grades, the store and the informers that feed it."""
