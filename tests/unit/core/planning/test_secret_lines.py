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


def test_two_private_keys_are_named_twice_and_what_follows_a_key_is_no_row_of_it() -> None:
    key = [b"-----BEGIN RSA PRIVATE KEY-----", b"MIIEpAIBAAKCAQEA" * 4, b"-----END RSA PRIVATE KEY-----"]
    rows = [*key, b"", *key, b"token = '%s'" % TOKEN, b"token = '%s'" % TOKEN[::-1], b"again = '%s'" % TOKEN]
    (file,) = parse_diff(diff_of([Edited("key.pem", ((0, tuple(("+", row) for row in rows)),))]))
    assert secret_lines([file]) == (
        SecretLine("key.pem", "RIGHT", 2, "private key"),
        SecretLine("key.pem", "RIGHT", 6, "private key"),
        SecretLine("key.pem", "RIGHT", 8, "GitHub token"),
        SecretLine("key.pem", "RIGHT", 10, "GitHub token"),
    )


def test_equal_secrets_on_neighbouring_lines_are_each_named() -> None:
    rows = tuple(("+", b"key = '%s'" % TOKEN) for _ in range(3))
    (file,) = parse_diff(diff_of([Edited("a.py", ((0, rows),))]))
    assert [found.line for found in secret_lines([file])] == [1, 2, 3]


def test_a_file_without_a_last_line_feed_has_its_secrets_named_at_their_lines() -> None:
    text = b"--- a/a.py\n+++ b/a.py\n@@ -1 +1,2 @@\n-old\n\\ No newline at end of file\n+new\n+x = '%s'\n" % TOKEN
    (file,) = parse_diff(b"diff --git a/a.py b/a.py\n" + text)
    assert secret_lines([file]) == (SecretLine("a.py", "RIGHT", 2, "GitHub token"),)


def test_a_change_without_secrets_has_none() -> None:
    assert secret_lines(parse_diff(diff_of([Edited("a.py", ((0, (("+", b"x = 1"),)),))]))) == ()
