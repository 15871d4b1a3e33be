"""Log lines: one per event, in one form, without secrets and without forged ends."""

from __future__ import annotations

import base64
import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from worker import logs
from worker.core.redaction import MASK, Redactor

KEY = "s3cr3t-of-the-installation"
TOKEN = "ghp_" + "a1" * 18
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nq8Zk\n-----END RSA PRIVATE KEY-----"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    yield io.StringIO()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(params=["console", "json"])
def form(request: pytest.FixtureRequest) -> logs.Format:
    return "json" if request.param == "json" else "console"


def test_a_line_is_time_level_event_and_then_fields(written: io.StringIO) -> None:
    logs.configure("console", stream=written)
    structlog.contextvars.bind_contextvars(job="j-1")
    structlog.get_logger().info("review.published", posted=3, reason="two words")
    time, level, event, fields = written.getvalue().split(maxsplit=3)
    assert time.endswith("Z")
    assert (level, event) == ("info", "review.published")
    assert fields == 'posted=3 reason="two words" job=j-1\n'


def test_json_lines_begin_with_time_level_and_event(written: io.StringIO) -> None:
    logs.configure("json", stream=written)
    structlog.get_logger().warning("job.deferred", wait_s=2.5)
    line = json.loads(written.getvalue())
    assert list(line) == ["time", "level", "event", "wait_s"]
    assert (line["level"], line["event"], line["wait_s"]) == ("warning", "job.deferred", 2.5)


def test_lines_of_celery_and_uvicorn_have_the_same_form(written: io.StringIO, form: logs.Format) -> None:
    logs.configure(form, stream=written)
    logging.getLogger("celery.worker").info("ready on %s", "host-1")
    logging.getLogger("uvicorn.error").warning("too slow")
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    if form == "json":
        assert [json.loads(line)["event"] for line in lines] == ["ready on host-1", "too slow"]
    else:
        assert [line.split(maxsplit=2)[1:] for line in lines] == [["info", "ready on host-1"], ["warning", "too slow"]]


def test_secrets_appear_in_no_line_wherever_they_came_from(written: io.StringIO, form: logs.Format) -> None:
    logs.configure(form, secrets=[KEY, PEM], stream=written)
    log = structlog.get_logger()
    log.info("a.happened", token=KEY, nested={"headers": [f"Bearer {KEY}"]}, key=PEM)
    logging.getLogger("celery").warning("message %s", KEY)
    try:
        raise ValueError(f"cannot log in with {KEY} nor {TOKEN}")
    except ValueError:
        log.exception("b.happened")
        logging.getLogger("uvicorn.error").exception("failed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"odd {KEY}", stacklevel=1)
    text = written.getvalue()
    assert KEY not in text
    assert TOKEN not in text
    assert "MIIEpAIB" not in text
    assert text.count(MASK) >= 6
    if form == "json":
        assert all(json.loads(line) for line in text.splitlines())


HOSTILE = "main\n2026-01-01T00:00:00Z info    review.published job=forged\r\x1b[2J\u2028\u202egnp\x00\x85\udcff"


def test_hostile_text_ends_no_line_and_steers_no_terminal(written: io.StringIO, form: logs.Format) -> None:
    logs.configure(form, stream=written)
    structlog.get_logger().info("x.happened", branch=HOSTILE, many=[HOSTILE])
    logging.getLogger("git").warning("fetch of %s", HOSTILE)
    text = written.getvalue()
    assert text.count("\n") == 2
    assert text.endswith("\n")
    assert all(mark.isprintable() for mark in text.replace("\n", ""))


def test_a_quotation_mark_in_a_value_cannot_start_the_next_field(written: io.StringIO) -> None:
    logs.configure("console", stream=written)
    structlog.get_logger().info("x.happened", branch='a" job="forged')
    assert written.getvalue().endswith('branch="a\\" job=\\"forged"\n')


def test_the_level_is_obeyed(written: io.StringIO) -> None:
    logs.configure("console", "warning", stream=written)
    structlog.get_logger().info("quiet.happened")
    structlog.get_logger().warning("loud.happened")
    assert "quiet" not in written.getvalue()
    assert "loud.happened" in written.getvalue()


def test_configuring_twice_writes_each_line_once(written: io.StringIO) -> None:
    logs.configure("console", stream=written)
    logs.configure("console", stream=written)
    structlog.get_logger().info("x.happened")
    assert written.getvalue().count("x.happened") == 1


@pytest.mark.parametrize("before", ["", "u:", "x-access-token:", "ab"])
def test_a_known_secret_is_found_in_base64_at_any_offset(before: str) -> None:
    encoded = base64.b64encode(f"{before}{KEY}".encode()).decode()
    shown = Redactor([KEY])(f"Authorization: {encoded}")
    assert MASK in shown
    assert encoded[8:24] not in shown


@pytest.mark.parametrize(
    "token",
    [
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "A1b2" * 8,
        "glpat-" + "a1b2" * 5,
        "sk-" + "a1b2" * 10,
        "sk-kimi-" + "a1b2" * 10,
        "xoxb-1234567890-abc",
        "AKIA" + "ABCD1234" * 2,
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
        PEM,
    ],
)
def test_a_token_is_known_by_its_shape(token: str) -> None:
    shown = Redactor()(f"before {token} after")
    assert token not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_a_login_in_a_url_is_masked_and_the_host_stays() -> None:
    assert Redactor()("redis://user:pass-word@redis:6379/0") == f"redis://{MASK}@redis:6379/0"


@pytest.mark.parametrize("text", ["risk-free", "token bucket", "the bearer of news", "https://example.org:443/a@b", ""])
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor()(text) == text


def test_the_larger_part_of_a_secret_is_masked_and_the_words_around_it_stay() -> None:
    redact = Redactor([KEY, "another-secret-of-ours-4711"])
    for part in (KEY[7:], KEY[:-7], KEY.encode().hex(), base64.b64encode(KEY[7:].encode()).decode().rstrip("=")):
        shown = redact(f"take {part}! and {part}")
        assert shown.startswith(f"take {MASK}")
        assert not any(part[at : at + 12] in shown for at in range(len(part) - 11))
    assert redact(f"{KEY[7:]}another-secret-of") == MASK * 2
    assert redact("another secret, another-secret, 4711") == "another secret, another-secret, 4711"


def test_a_very_short_secret_does_not_tear_words_apart() -> None:
    assert Redactor(["a", ""])("banana") == "banana"


def test_at_debug_no_source_of_a_function_and_no_step_of_celery_s_building_is_written(written: io.StringIO) -> None:
    logs.configure("json", "debug", stream=written)
    logging.getLogger("celery.utils.functional").debug("\ndef review(self):\n    return 1\n")
    logging.getLogger("celery.bootsteps").debug("^-- substep ok")
    structlog.get_logger().debug("job.looked_at")
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["job.looked_at"]
