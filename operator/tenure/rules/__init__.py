"""Pure rules: facts and an instant in, violations out. No clock, no I/O; a file per family, a function per rule."""

from tenure.rules import exceptions
from tenure.rules.catalogue import CATALOGUE, Entry
from tenure.rules.evaluation import KINDS, evaluate

__all__ = ["CATALOGUE", "KINDS", "Entry", "evaluate", "exceptions"]
