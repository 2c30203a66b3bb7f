"""Pure: what becomes of a violation, and when. Sees neither clock nor I/O; `now` is an argument."""
