"""docs/rules.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from tenure.api.names import Rule
from tenure.rules import CATALOGUE
from tenure.rules.evaluation import CHECKS

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"


def _rows(columns: int) -> dict[str, list[str]]:
    """The rows of the tables with so many columns that begin with a rule's id."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = cells[0].strip("`")
        if line.startswith("| `") and len(cells) == columns and name in set(Rule):
            rows[name] = cells
    return rows


def _implemented() -> set[str]:
    checks = {check.__name__ for family in CHECKS.values() for check in family}
    names = {"".join(word.capitalize() for word in name.split("_")) for name in checks}
    return names | {"ExceptionLapsed"}


def test_every_rule_stands_with_its_frameworks() -> None:
    rows = _rows(5)
    assert list(rows) == [rule.value for rule in CATALOGUE]
    for rule, entry in CATALOGUE.items():
        cells = rows[rule.value]
        assert cells[1:4] == [entry.base.value, ", ".join(entry.owasp), ", ".join(entry.nist)]
        assert (cells[4] == "yes") is (rule.value in _implemented())


def test_the_rules_in_force_stand_with_their_least_risk() -> None:
    rows = _rows(6)
    assert set(rows) == _implemented()
    for name, cells in rows.items():
        assert cells[3] == CATALOGUE[Rule(name)].base.value
