"""What the API server's audit events tell of use: a source, wherever it has them from, yields the requests after a
position."""
