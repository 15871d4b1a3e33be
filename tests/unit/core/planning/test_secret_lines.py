"""A secret in a change is named by its place."""

from __future__ import annotations

from tests.fakes.changes import Edited, diff_of
from worker.core.diff.parse import parse_diff
from worker.core.planning.secret_lines import SecretLine, secret_lines

TOKEN = b"ghp_" + b"a1B2" * 9


def test_secrets_on_changed_lines_are_named_by_side_and_line_and_those_in_context_are_not() -> None:
    rows = ((" ", b"x = '%s'" % TOKEN), ("-", b"y = '%s'" % TOKEN), ("+", b"y = read()"), ("+", b"z = '%s'" % TOKEN))
    (file,) = parse_diff(diff_of([Edited("a.py", ((9, rows),))]))
    assert secret_lines([file]) == (
        SecretLine("a.py", "LEFT", 11, "GitHub token"),
        SecretLine("a.py", "RIGHT", 12, "GitHub token"),
    )


def test_a_private_key_is_named_once() -> None:
    body = (b"MIIEpAIBAAKCAQEA" * 4, b"abcdEFGH" * 8, b"ab==")
    rows = [b"-----BEGIN RSA PRIVATE KEY-----", *body, b"-----END RSA PRIVATE KEY-----"]
    (file,) = parse_diff(diff_of([Edited("key.pem", ((0, tuple(("+", row) for row in rows)),))]))
    assert secret_lines([file]) == (SecretLine("key.pem", "RIGHT", 2, "private key"),)


def test_a_change_without_secrets_has_none() -> None:
    assert secret_lines(parse_diff(diff_of([Edited("a.py", ((0, (("+", b"x = 1"),)),))]))) == ()
