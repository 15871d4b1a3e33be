"""How candidates of a second look are shown to the model."""

from __future__ import annotations

import pytest

from worker.core.answers import Verdict
from worker.core.diff.parse import parse_diff
from worker.core.finding import Anchor, Finding, Severity
from worker.core.verdict import AROUND, Candidate, candidates, standing

KEY_ROW = "Q2secondFalseRow8Lm4ofThatPrivateKey1Wv"
DIFF = f"""\
diff --git a/key.py b/key.py
--- a/key.py
+++ b/key.py
@@ -1,2 +1,7 @@
 import os
+KEY = '''-----BEGIN RSA PRIVATE KEY-----
+MIIEfalse9Kq3rowOfAPrivateKey7Zx0planted
+{KEY_ROW}
+-----END RSA PRIVATE KEY-----'''
+print(KEY)
 run()
\\ No newline at end of file
""".encode()


def finding_at(anchor: Anchor | None, path: str = "key.py") -> Finding:
    return Finding(
        path=path,
        anchor=anchor,
        severity=Severity.HIGH,
        category="security",
        title="A key",
        body="It is printed.",
        quote="",
        fingerprint="f",
    )


@pytest.mark.parametrize("line", [2, 4, 6, 7])
def test_the_rows_of_a_private_key_are_masked_wherever_the_shown_code_begins(line: int) -> None:
    [file] = parse_diff(DIFF)
    [candidate] = candidates([finding_at(Anchor("key.py", "RIGHT", line, line))], {"key.py": file})
    rows = candidate.code.split("\n")[:-1]
    assert KEY_ROW not in candidate.code
    assert len(rows) == 7
    assert [row for row in rows if row.startswith(">")] == [rows[line - 1]]
    assert rows[2].endswith("«masked: private key»")
    assert rows[5].endswith("print(KEY)")
    assert rows[6].endswith("run()")


def test_the_code_that_is_shown_reaches_a_few_lines_around_what_is_cited() -> None:
    body = "".join(f"+row {number}\n" for number in range(1, 101))
    [file] = parse_diff(
        f"diff --git a/n.py b/n.py\nnew file mode 100644\n--- /dev/null\n+++ b/n.py\n@@ -0,0 +1,100 @@\n{body}".encode()
    )
    [candidate] = candidates([finding_at(Anchor("n.py", "RIGHT", 40, 42), "n.py")], {"n.py": file})
    rows = candidate.code.splitlines()
    assert rows[0] == f"  {40 - AROUND} (added)  row {40 - AROUND}"
    assert rows[-1] == f"  {42 + AROUND} (added)  row {42 + AROUND}"
    assert [row for row in rows if row.startswith(">")] == [
        f"> {number} (added)  row {number}" for number in (40, 41, 42)
    ]


def test_a_finding_without_a_line_or_a_file_shows_no_code() -> None:
    [file] = parse_diff(DIFF)
    nowhere, elsewhere = finding_at(None), finding_at(Anchor("other.py", "RIGHT", 1, 1), "other.py")
    assert [candidate.code for candidate in candidates([nowhere, elsewhere], {"key.py": file})] == ["", ""]


def test_only_what_every_verdict_refutes_is_refuted() -> None:
    findings = [finding_at(None, f"{name}.py") for name in "abcde"]
    numbered = [Candidate(f"C{number}", finding, "") for number, finding in enumerate(findings, start=1)]
    verdicts = [
        Verdict("C1", "refuted", ""),
        Verdict("C2", "confirmed", ""),
        Verdict("C3", "unclear", ""),
        Verdict("C4", "refuted", ""),
        Verdict("C4", "confirmed", ""),
        Verdict("C9", "refuted", ""),
    ]
    kept, refuted = standing(numbered, verdicts)
    assert refuted == (findings[0],)
    assert kept == tuple(findings[1:])
