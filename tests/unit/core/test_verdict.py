"""How candidates of a second look are shown to the model."""

from __future__ import annotations

import pytest

from worker.core.diff.parse import parse_diff
from worker.core.finding import Anchor, Finding, Severity
from worker.core.verdict import candidates

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


@pytest.mark.parametrize("line", [2, 4, 6, 7])
def test_the_rows_of_a_private_key_are_masked_wherever_the_shown_code_begins(line: int) -> None:
    [file] = parse_diff(DIFF)
    finding = Finding(
        path="key.py",
        anchor=Anchor("key.py", "RIGHT", line, line),
        severity=Severity.HIGH,
        category="security",
        title="A key",
        body="It is printed.",
        quote="",
        fingerprint="f",
    )
    [candidate] = candidates([finding], {"key.py": file})
    rows = candidate.code.split("\n")[:-1]
    assert KEY_ROW not in candidate.code
    assert len(rows) == 7
    assert [row for row in rows if row.startswith(">")] == [rows[line - 1]]
    assert rows[2].endswith("«masked: private key»")
    assert rows[5].endswith("print(KEY)")
    assert rows[6].endswith("run()")
