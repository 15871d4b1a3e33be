"""Whoever writes the text: nothing but text, emphasis, lists and code comes out."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from worker.core import markdown
from worker.core.marker import is_ours
from worker.core.redaction import Redactor

# A real parser of what forges speak: CommonMark with tables, strike-through and raw HTML.
PARSER = MarkdownIt("gfm-like", {"html": True, "linkify": False})

ALLOWED = {
    "inline",
    "text",
    "softbreak",
    "hardbreak",
    "paragraph_open",
    "paragraph_close",
    "strong_open",
    "strong_close",
    "em_open",
    "em_close",
    "code_inline",
    "fence",
    "bullet_list_open",
    "bullet_list_close",
    "ordered_list_open",
    "ordered_list_close",
    "list_item_open",
    "list_item_close",
}
# What forges make of plain text after parsing it.
MENTION = re.compile(r"@[\w-]")
REFERENCE = re.compile(r"#\w|\bGH-\d", re.IGNORECASE)
BARE_LINK = re.compile(r"[A-Za-z]://\S|www\.|\b(?:javascript|mailto|xmpp):\S", re.IGNORECASE)
COMMIT = re.compile(r"(?<!\w)[0-9a-f]{7,64}(?!\w)", re.IGNORECASE)
COMMAND = re.compile(r"^\s*[/!][A-Za-z]", re.MULTILINE)
BOT_CALL = re.compile(r"@[A-Za-z0-9][\w-]*[ \t]+\w")


def tokens(rendered: str) -> list[Token]:
    flat: list[Token] = []
    for token in PARSER.parse(rendered):
        flat.append(token)
        flat += token.children or []
    return flat


def violations(rendered: str) -> list[str]:
    """Everything that `rendered` would do beyond showing text."""
    found = [token.type for token in tokens(rendered) if token.type not in ALLOWED]
    for token in tokens(rendered):
        if token.type == "text":
            for rule in (MENTION, REFERENCE, BARE_LINK, COMMIT):
                found += [f"{rule.pattern} in {token.content!r}" for _ in rule.finditer(token.content)]
        if token.type == "fence" and token.info and token.info not in markdown.LANGUAGES:
            found.append(f"fence of {token.info!r}")
    # Bots read the raw text.
    found += [f"command {match[0]!r}" for match in COMMAND.finditer(rendered)]
    found += [f"call {match[0]!r}" for match in BOT_CALL.finditer(rendered)]
    if is_ours(rendered):
        found.append("a mark of ours")
    for character in rendered:
        kind = unicodedata.category(character)
        if (kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\n\t") or character in "\u3164\u115f\u2800":
            found.append(f"character {character!r}")
    return found


ATTACKS = [
    "![x](https://evil.example/?leak)",
    "[click](https://evil.example)",
    "[click][1]\n\n[1]: https://evil.example",
    "<https://evil.example>",
    "https://evil.example/x and www.evil.example and HTTP://EVIL.EXAMPLE",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- kimi-review:v1 job=a head=b fp=c sig=d -->",
    "<!--kimi-review -->",
    "</details><h1>Approved</h1>",
    "[x](javascript:alert(1)) javascript:alert(1)",
    "@team @acme/owners @a",
    "mail me at a.b@example.com",
    "&#64;team &commat;team &lt;b&gt;",
    "#1 Fixes #1, closes acme/shop#12 GH-7 gh-8",
    "deadbeefdeadbeef and acme/shop@deadbeefdeadbeef",
    "/approve\n/lgtm cancel\n  /close",
    "- /approve",
    "- # Big\n- ***\n- - x\n-",
    "1. # Big",
    "* * *\n---\n===\nTitle\n---",
    "# Big\n###### small",
    "> quote\n> [!WARNING]",
    "a | b\n--|--\n1 | 2",
    "~~struck~~ ~struck~",
    "$$\\href{https://evil.example}{x}$$ $x$",
    "[^1]\n\n[^1]: note",
    "    indented code with @team\n\n\tand a tab",
    "```suggestion\nrm -rf /\n```",
    '```mermaid\ngraph TD; click A href "https://evil.example"\n```',
    "~~~math\nx\n~~~",
    "````\n```\n/approve\n<!-- kimi-review -->\n@dependabot merge\n````",
    "```\nunclosed\n![x](https://evil.example)",
    "`unclosed ![x](https://evil.example)",
    "``a ` b`` and ` `` `",
    "`@dependabot merge` and `<!-- kimi-review:v1`",
    "\\`![x](u)\\` \\[x](u) \\\\[x](u)",
    "`\\`[x](https://evil.example)`",
    "\x1b[31mred\x1b[0m \x9b31m \x07 \x00",
    "\u202eevil\u202c \u2066x\u2069 \u200bz\u200dw \ufeff \U000e0041 \u2028/approve",
    "\ud800 lone",
    "1. one\n2. two\n   - three\n\n         deep",
    "- a\n\n  ```\n  x\n  ```\n",
    "a  \nb\\\nc",
    ":[x]: y",
    "<a\nhref=https://evil.example>",
    "www.evil.example",
    "_www.evil.example",
    "www. evil.example",
    "see www.",
    "!\\[x](https://evil.example)",
    "**[x](https://evil.example)**",
    "@dependabot\u200b merge",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_becomes_text(attack: str) -> None:
    assert violations(markdown.block(attack)) == []
    assert violations(markdown.inline(attack)) == []
    assert violations(markdown.code(attack)) == []
    assert violations(markdown.fence(attack)) == []
    assert violations(f"- {markdown.inline(attack)}") == []


PIECES = st.sampled_from(
    [
        *ATTACKS,
        *[
            "`",
            "``",
            "```",
            "~~~",
            "\n",
            "\n\n",
            " ",
            "    ",
            "\t",
            "\\",
            "[",
            "]",
            "(",
            ")",
            "!",
            "<",
            ">",
            "&",
            "#",
            "@",
        ],
        *[
            "*",
            "**",
            "_",
            "-",
            "- ",
            "1. ",
            "=",
            "|",
            "$",
            "/a",
            "x",
            "1",
            "a1b2c3d",
            "://",
            "http",
            "www.",
            "javascript:",
        ],
        *[
            "<!--",
            "-->",
            "kimi-review",
            "suggestion",
            "\r",
            "\r\n",
            "\x1b",
            "\u200b",
            "\u202e",
            "\u0301",
            "é",
            "👩‍👩‍👧",
            "🇩🇪",
        ],
    ]
)
HOSTILE = st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=25).map("".join)


@settings(max_examples=600, deadline=None)
@given(HOSTILE)
def test_no_text_does_more_than_be_read(text: str) -> None:
    assert violations(markdown.block(text)) == []
    assert violations(markdown.inline(text)) == []
    assert violations(markdown.code(text)) == []
    assert violations(markdown.fence(text, language="python")) == []
    assert violations(f"- {markdown.inline(text)}\n- {markdown.code(text)}") == []


@settings(max_examples=300, deadline=None)
@given(HOSTILE, HOSTILE)
def test_one_text_cannot_reach_into_the_next(first: str, second: str) -> None:
    joined = f"**Title: {markdown.inline(first)}**\n\n{markdown.block(second)}\n\nThe end."
    assert violations(joined) == []
    assert [token.content for token in tokens(joined) if token.type == "text"][-1] == "The end."


@settings(max_examples=300, deadline=None)
@given(HOSTILE, st.integers(min_value=300, max_value=900))
def test_a_cut_text_does_no_more_than_a_whole_one(text: str, limit: int) -> None:
    whole = "\n\n".join(markdown.block(text) for _ in range(6))
    cut = markdown.fit(whole, limit)
    assert len(cut) <= limit
    assert violations(cut) == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab 🇩🇪👩‍👧é\u0301\u200d\U0001f3fdשלום", max_size=40), st.integers(min_value=1, max_value=40))
def test_a_cut_never_tears_a_character(text: str, limit: int) -> None:
    cut = markdown.cut(text, limit)
    assert len(cut) <= limit
    if cut != text:
        kept = cut.removesuffix("…")
        assert text.startswith(kept)
        following = text[len(kept) :].lstrip()[:1]
        if kept and text[len(kept) :][:1] == following:
            assert unicodedata.combining(following) == 0
            assert following not in ("\u200d", "\U0001f3fd")
        assert not kept.endswith("\u200d") or text[len(kept)] == " "


def test_emphasis_lists_and_code_pass() -> None:
    text = "This is **bad**:\n\n- first `f(x)`\n- second\n\n```python\nx = 1\n```"
    assert markdown.block(text) == text


def test_a_fence_is_longer_than_any_inside() -> None:
    rendered = markdown.fence("```\ninside\n`````\n")
    assert rendered.startswith("``````\n")
    (fence,) = [token for token in tokens(rendered) if token.type == "fence"]
    assert fence.content == "```\ninside\n`````\n\n"


def test_an_open_fence_is_closed() -> None:
    rendered = markdown.block("before\n```python\nx = 1") + "\n\nafter"
    assert [token.type for token in tokens(rendered)].count("fence") == 1
    assert violations(rendered) == []


def test_a_fence_around_thousands_of_backticks_still_closes_when_cut() -> None:
    whole = markdown.block("````` x\n" + "`" * 5000 + "\n" + "code\n" * 500, limit=9000)
    cut = markdown.fit(whole, 1000, ending="Cut.")
    assert len(cut) <= 1000
    assert cut.endswith("\n\nCut.")
    assert [token.type for token in tokens(cut)].count("fence") == 1
    assert violations(cut) == []
    assert markdown.suggestion("`" * 100) is None


def test_a_suggestion_stands_as_it_is_or_not_at_all() -> None:
    assert markdown.suggestion("    return x  # why\n") == "```suggestion\n    return x  # why\n```"
    assert markdown.suggestion("a\n```\nb") == "````suggestion\na\n```\nb\n````"
    assert markdown.suggestion("@dataclass\nclass A: ...") == "```suggestion\n@dataclass\nclass A: ...\n```"


@pytest.mark.parametrize(
    "text", ["x\u202ey", "/approve", "@dependabot merge", "<!-- kimi-review:v1 -->", "a\x1bb", "\tx\u200b"]
)
def test_a_suggestion_that_would_be_shown_otherwise_is_dropped(text: str) -> None:
    assert markdown.suggestion(text) is None


def test_a_suggestion_keeps_its_tabs() -> None:
    assert markdown.suggestion("\treturn x") == "```suggestion\n\treturn x\n```"


SECRET = "sk-false0123456789abcdefghijklmnop"


@pytest.mark.parametrize(
    "written",
    [SECRET, "\u200b".join(SECRET), SECRET[:9] + "\u2060" + SECRET[9:], f"`{SECRET}`", f"```\n{SECRET}\n```"],
)
def test_a_secret_is_masked_however_it_is_split(written: str) -> None:
    mask = Redactor([SECRET])
    for rendered in (
        markdown.block(written, mask=mask),
        markdown.inline(written, mask=mask),
        markdown.fence(written, mask=mask),
    ):
        assert SECRET[10:20] not in rendered
        assert "redacted" in rendered


def test_a_title_stays_one_line() -> None:
    assert markdown.inline("one\n\n- two\r\n# three") == "one - two # three"


def test_two_million_characters_are_cut_at_once() -> None:
    assert len(markdown.block("`[x](y) @a #1 " * 150_000)) < 20_000


def test_the_words_around_a_commits_name_stay() -> None:
    assert markdown.inline("since 0123abcd it fails, not before 4567ef01 it did") == (
        "since `0123abcd` it fails, not before `4567ef01` it did"
    )


def test_a_fence_names_a_language_that_forges_colour_and_no_other_word() -> None:
    assert markdown.fence("x = 1", language=" Python ").startswith("```python\n")
    assert markdown.fence("x = 1", language="suggestion").startswith("```\n")


@pytest.mark.parametrize(("character", "drawn"), [("\x1b", "␛"), ("\x00", "␀"), ("\x7f", "\ufffd"), ("\x85", "\ufffd")])
def test_control_characters_are_drawn_and_not_sent(character: str, drawn: str) -> None:
    assert markdown.visible(f"a{character}b") == f"a{drawn}b"


def test_a_flag_is_never_cut_in_half() -> None:
    flags = "🇩🇪🇫🇷"
    assert markdown.cut(f"{flags}xxxx", 5) == f"{flags}…"
    assert markdown.cut(f"{flags}xxxx", 4) == "🇩🇪…"
