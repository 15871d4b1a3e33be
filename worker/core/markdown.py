"""The one renderer for text that the model or the change wrote: an allow-list, whoever controls the text.

What passes: paragraphs, `*` and `**` emphasis, lists, code spans and fenced code. Nothing else has an effect:
no link, image, HTML, mention, reference to an issue or commit, command for a bot, mark of ours, or character
that hides or reorders what a reader sees. Every function cuts between characters a reader would tell apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

Mask = Callable[[str], str]
"""Replaces what must not be shown (secrets); must not add Markdown."""

# Known to highlighters, and drawn as text by every forge. Others are not passed on: `suggestion` would change
# code at a click; `mermaid`, `math`, `geojson`, `stl` and their kin are drawn, not shown.
_LANGUAGE_NAMES = """
    bash c clj clojure cmake cpp cs csharp css csv cxx dart diff docker dockerfile elixir erl erlang ex fish fsharp
    go graphql groovy h haskell hcl hpp hs html ini java javascript js json json5 jsonc jsx jl julia kotlin kt less
    lua make makefile markdown md nim nix objc ocaml perl php pl powershell prolog proto protobuf ps1 py python
    python3 r rb rs ruby rust sass scala scss sh shell sql svelte swift tex text tf toml ts tsx txt typescript vb
    vim vue xml yaml yml zig zsh
"""
LANGUAGES = frozenset(_LANGUAGE_NAMES.split())

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$")
_LIST_ITEM = re.compile(r"([-*+]|\d{1,4}[.)]) +(?=\S)")
_LIST_MARK = re.compile(r"(\d{0,9})([-*+.)])(?= |$)")
_RULE = re.compile(r"[-=*_+ ]+")
_BACKTICKS = re.compile(r"`+")
# The fence around it is longer still, and closing it must fit when a text is cut.
_LONGEST_RUN = "`" * 60
_LONG_RUN = re.compile(r"`{60,}")
_COMMAND = re.compile(r"[/!.](?=[A-Za-z])")
_CODE_COMMAND = re.compile(r"[/!](?=[A-Za-z])")
_CALL_OF_A_BOT = re.compile(r"@(?=[A-Za-z0-9][\w-]*(?:\[bot\])?[ \t]+\w)")
_TRACE_OF_A_MARK = re.compile(r"<!(?=--)")
_ESCAPED = {
    **{character: f"\\{character}" for character in "\\[]_~|$"},
    # Not by a backslash: beside a code span it is read in more than one way.
    "`": "&#96;",
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
}
# Where a forge would make a link of plain text, a space or a hyphen of another kind parts it: still readable, and
# nothing for a bot that reads the raw text either. https://github.github.com/gfm/#autolinks-extension-
_PARTED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"@(?=[\w-])"), "@ "),
    (re.compile(r"(?<=[A-Za-z])://(?=\S)"), ":// "),
    # Before the point: `www.` alone is a link already, to a host of that name.
    (re.compile(r"(www)\.", re.IGNORECASE), r"\1 ."),
    (re.compile(r"\b(javascript|vbscript|data|mailto|xmpp|file)\s*:(?=\S)", re.IGNORECASE), r"\1 : "),
    (re.compile(r"#(?=\w)"), "# "),
    (re.compile(r"\bGH-(?=\d)", re.IGNORECASE), "GH\N{NON-BREAKING HYPHEN}"),
    (re.compile(r"(?<![\w])([!%&~])(?=\d)"), r"\1 "),
)
_COMMIT = re.compile(r"(?<!\w)[0-9a-fA-F]{7,64}(?!\w)")

# Invisible, though Unicode does not class them as format characters.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def block(text: str, *, limit: int = 4000, mask: Mask | None = None) -> str:
    """`text` as Markdown blocks, ended without a line feed. `limit` counts characters of `text`, before escaping."""
    return "\n".join(_blocks(cut(_clean(text, mask).strip("\n"), limit)))


def inline(text: str, *, limit: int = 200, mask: Mask | None = None) -> str:
    """`text` on one line, for a title or a cell: code spans pass, emphasis does not."""
    line = " ".join(_clean(text, mask).split())
    return _leading(cut(line, limit), emphasis=False)


def code(text: str, *, limit: int = 300, mask: Mask | None = None) -> str:
    """`text` as one code span; for paths, refs and names."""
    line = _clean(text, mask).replace("\t", " ").replace("\n", "\N{SYMBOL FOR NEWLINE}")
    return _code_span(cut(line, limit))


def fence(text: str, *, language: str = "", limit: int = 4000, mask: Mask | None = None) -> str:
    """`text` as a fenced block that nothing inside can end."""
    name = language.strip().lower()
    return "\n".join(_fenced(cut(_clean(text, mask), limit).split("\n"), name if name in LANGUAGES else ""))


def suggestion(text: str, *, mask: Mask | None = None) -> str | None:
    """A block by which the reader replaces the lines commented on; None when `text` could not stand as it is.

    What is shown must be what is applied, so anything this module would have changed rules the block out.
    """
    text = text.removesuffix("\n")
    lines = text.split("\n")
    if _clean(text, mask) != text or any(_code_line(line) != line for line in lines):
        return None
    marks = _fence_for(text)
    return f"{marks}suggestion\n{text}\n{marks}"


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, an ellipsis in place of what is missing, no character torn apart."""
    if len(text) <= limit:
        return text
    end = max(limit - 1, 0)
    while end > 0 and _joins(text, end):
        end -= 1
    return text[:end].rstrip() + "…"


def fit(markdown: str, limit: int, *, ending: str = "") -> str:
    """At most `limit` characters of rendered `markdown`, cut between lines; `ending` is added when it was cut.

    Works on what this module rendered: code spans end on their line, so a cut between lines opens nothing, and
    open fences and `<details>` of ours are closed.
    """
    if len(markdown) <= limit:
        return markdown
    room = limit - len(ending) - len(_CLOSING_ROOM)
    kept: list[str] = []
    used = 0
    for line in markdown.split("\n"):
        used += len(line) + 1
        if used > room:
            break
        kept.append(line)
    return "\n".join([*kept, *_closings(kept)]) + (f"\n\n{ending}" if ending else "")


def visible(text: str) -> str:
    """`text` with control characters drawn and hidden ones removed: safe for a terminal, a log line or a page."""
    return _clean(text, None)


# ------------------------------------------------------------------------------------------ blocks


def _blocks(text: str) -> Iterator[str]:
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at])
        if opening is None:
            yield _line(lines[at].expandtabs(4))
            at += 1
            continue
        marks, said = opening[1], opening[2].strip().split(" ")[0].lower()
        closing = re.compile(rf" {{0,3}}{re.escape(marks[0])}{{{len(marks)},}}[ \t]*")
        end = at + 1
        while end < len(lines) and closing.fullmatch(lines[end]) is None:
            end += 1
        yield from _fenced(lines[at + 1 : end], said if said in LANGUAGES else "")
        at = end + 1


def _line(line: str) -> str:
    body = line.strip(" ")
    # Four spaces would make code of it, where our escapes would be seen.
    indent = " " * min(len(line) - len(line.lstrip(" ")), 3)
    item = _LIST_ITEM.match(body)
    if item is None or _RULE.fullmatch(body):
        return (indent + _leading(body)).rstrip(" ")
    return f"{indent}{item[1]} {_leading(body[item.end() :])}"


def _leading(text: str, *, emphasis: bool = True) -> str:
    """One line that begins no block: neither list, heading, rule nor command."""
    if _RULE.fullmatch(text):
        return "".join(f"\\{character}" if character != " " else " " for character in text)
    if (item := _LIST_MARK.match(text)) is not None:
        return f"{item[1]}\\{item[2]}{_spans(text[item.end() :], emphasis=emphasis)}"
    spans = _spans(text, emphasis=emphasis)
    return f"\\{spans}" if spans.startswith("#") or _COMMAND.match(spans) else spans


def _fenced(lines: list[str], language: str) -> Iterator[str]:
    shown = [_code_line(line) for line in lines]
    marks = _fence_for("\n".join(shown))
    yield marks + language
    yield from shown
    yield marks


def _fence_for(text: str) -> str:
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    return "`" * max(3, longest + 1)


def _code_line(line: str) -> str:
    """One line of fenced code: drawn as text by forges, but read raw by bots."""
    body = _LONG_RUN.sub(_LONGEST_RUN, line.lstrip())
    indent = line[: len(line) - len(line.lstrip())]
    if _CODE_COMMAND.match(body):
        body = f"\\{body}"
    return indent + _parted_code(body)


def _parted_code(text: str) -> str:
    return _TRACE_OF_A_MARK.sub("<! ", _CALL_OF_A_BOT.sub("@ ", text))


# ------------------------------------------------------------------------------------------- spans


def _spans(text: str, *, emphasis: bool) -> str:
    """One line: code spans as they are, the rest escaped. A run of backticks pairs with the next of its length."""
    runs = list(_BACKTICKS.finditer(text))
    out: list[str] = []
    at = 0
    index = 0
    while index < len(runs):
        opening = runs[index]
        partner = next((n for n in range(index + 1, len(runs)) if len(runs[n][0]) == len(opening[0])), None)
        if partner is None:
            index += 1
            continue
        out.append(_plain(text[at : opening.start()], emphasis=emphasis))
        out.append(_code_span(text[opening.end() : runs[partner].start()]))
        at = runs[partner].end()
        index = partner + 1
    out.append(_plain(text[at:], emphasis=emphasis))
    return _joined(out)


def _plain(text: str, *, emphasis: bool) -> str:
    out: list[str] = []
    at = 0
    for commit in _COMMIT.finditer(text):
        out.append(_escaped(text[at : commit.start()], emphasis=emphasis))
        out.append(_code_span(commit[0]))
        at = commit.end()
    out.append(_escaped(text[at:], emphasis=emphasis))
    return _joined(out)


def _joined(parts: list[str]) -> str:
    """The parts in a row; code spans side by side would be read as one."""
    out = ""
    for part in parts:
        out += f" {part}" if out.endswith("`") and part.startswith("`") else part
    return out


def _escaped(text: str, *, emphasis: bool) -> str:
    for pattern, parted in _PARTED:
        text = pattern.sub(parted, text)
    escaped = "".join(_ESCAPED.get(character, character) for character in text)
    return escaped if emphasis else escaped.replace("*", "\\*")


def _code_span(text: str) -> str:
    text = text.replace("\t", " ")
    text = _TRACE_OF_A_MARK.sub("<! ", re.sub(r"@(?=[A-Za-z0-9])", "@ ", text))
    if not text.strip(" "):
        return "` `" if text else ""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    marks = "`" * (longest + 1)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{marks}{pad}{text}{pad}{marks}"


# -------------------------------------------------------------------------------------- characters


def _clean(text: str, mask: Mask | None) -> str:
    # Hidden characters go first: they could split a secret so that no shape finds it.
    seen = "".join(_drawn(character) for character in text.replace("\r\n", "\n"))
    return mask(seen) if mask is not None else seen


def _drawn(character: str) -> str:
    if " " <= character <= "~" or character in "\n\t":
        return character
    if character in _INVISIBLE:
        return ""
    kind = unicodedata.category(character)
    if kind == "Cc":
        # ESC and its kin as pictures (U+2400…): nothing for a terminal to obey.
        return chr(0x2400 + ord(character)) if character < " " else "\N{REPLACEMENT CHARACTER}"
    if kind == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    if kind in ("Zl", "Zp"):
        return "\n"
    if kind == "Zs":
        return " "
    if kind == "Cf" or "\ufe00" <= character <= "\ufe0e" or "\U000e0100" <= character <= "\U000e01ef":
        return ""
    return character


def _joins(text: str, at: int) -> bool:
    """Whether the character at `at` belongs to the one before it."""
    here, before = text[at], text[at - 1]
    if unicodedata.combining(here) or unicodedata.category(here) in ("Mn", "Mc", "Me"):
        return True
    if here == "\u200d" or before == "\u200d" or "\U0001f3fb" <= here <= "\U0001f3ff":
        return True
    if _is_regional(here) and _is_regional(before):
        run = 0
        while run < at and _is_regional(text[at - 1 - run]):
            run += 1
        return run % 2 == 1
    return False


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


# ----------------------------------------------------------------------------------------- cutting

_CLOSING_ROOM = f"\n{_LONGEST_RUN}`" + "\n\n</details>" * 3


def _closings(lines: list[str]) -> list[str]:
    """What closes the fences and folds that `lines` leave open."""
    open_fence = ""
    folds = 0
    for line in lines:
        marks = re.match(r"`{3,}", line)
        if open_fence:
            if marks is not None and len(marks[0]) >= len(open_fence) and marks[0] == line.rstrip():
                open_fence = ""
        elif marks is not None and "`" not in line[marks.end() :]:
            open_fence = marks[0]
        elif line.startswith("<details>"):
            folds += 1
        elif line.startswith("</details>"):
            folds -= 1
    return ([open_fence] if open_fence else []) + ["", "</details>"] * folds
