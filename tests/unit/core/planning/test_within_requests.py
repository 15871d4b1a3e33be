"""What is sent first, and kept where a review may not have all: by the path alone."""

from __future__ import annotations

import pytest

from worker.core.planning.spending import Importance, importance


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("src/sum.py", Importance.SOURCE),
        ("Makefile", Importance.SOURCE),
        ("spec/tax.py", Importance.TEST),
        ("src/Tests/Sum.cs", Importance.TEST),
        ("tests", Importance.TEST),
        ("src/test_sum.py", Importance.TEST),
        ("src/SumTest.java", Importance.TEST),
        ("web/sum.spec.ts", Importance.TEST),
        ("fixtures/users.json", Importance.TEST),
        ("src/latest/sum.py", Importance.SOURCE),
        ("src/special/sum.py", Importance.SOURCE),
        ("config/app.YAML", Importance.CONFIGURATION),
        ("package.json", Importance.CONFIGURATION),
        ("docs/guide.md", Importance.DOCUMENT),
        ("tests/data/rows.csv", Importance.DOCUMENT),
        ("tests/README.MD", Importance.DOCUMENT),
    ],
)
def test_source_is_told_from_tests_configuration_and_documents(path: str, kind: Importance) -> None:
    assert importance(path) is kind
