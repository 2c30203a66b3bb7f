"""`make demo`: from an unowned token that works to one that the API server refuses, with times, on a real API server.

Each step is asserted; the exit status says so: 0 all of it happened, 1 a step failed, 2 it could not begin,
130 interrupted. Whatever happens, it ends what it started and removes what it made.
"""
