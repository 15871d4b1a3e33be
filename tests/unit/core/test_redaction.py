"""What is hidden from a model is hidden from the log too."""

from __future__ import annotations

import pytest

from tests.unit.core.test_masking import KEY_ROWS, SECRETS
from worker.core.masking import find
from worker.core.redaction import MASK, Redactor


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_every_shape_that_is_masked_for_a_model_is_redacted(kind: str) -> None:
    text = f"the forge said: {SECRETS[kind]} is wrong"
    (span,) = find(text)
    shown = Redactor()(text)
    assert text[span.start : span.end] not in shown
    assert MASK in shown
    assert shown.startswith("the forge said: ")
    assert shown.endswith(" is wrong")


@pytest.mark.parametrize("name", ["PRIVATE KEY", "RSA PRIVATE KEY", "X9 PRIVATE KEY", "PGP PRIVATE KEY BLOCK"])
@pytest.mark.parametrize("line_end", ["\n", "\\n"])
def test_a_private_key_is_redacted_as_a_whole(name: str, line_end: str) -> None:
    key = line_end.join([f"-----BEGIN {name}-----", *KEY_ROWS, f"-----END {name}-----"])
    assert Redactor()(f"before {key} after") == f"before {MASK} after"


def test_a_key_whose_beginning_was_cut_off_is_redacted_too() -> None:
    shown = Redactor()("\n".join([*KEY_ROWS, "-----END PGP PRIVATE KEY BLOCK-----", "after"]))
    assert not any(row in shown for row in KEY_ROWS)
    assert shown.endswith("\nafter")
