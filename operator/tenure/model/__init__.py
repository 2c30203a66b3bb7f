"""What was observed, as frozen records: no I/O, no clock, nothing of the wire's shape."""
