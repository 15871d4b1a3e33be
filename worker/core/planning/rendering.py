"""A chunk → the request as it is said. Text is made here, late, one request at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence

from worker.core.diff.model import Hunk
from worker.core.exchange import Kind, Prompt
from worker.core.masking import mask
from worker.core.planning.identity import name_of
from worker.core.planning.plan import Chunk, ChunkFile, Plan
from worker.core.planning.tokens import Counter, Size, text_size
from worker.core.showing import is_plain, shown, shown_path
from worker.core.words import Words

_SOME_NONCE = name_of("some nonce")
"""Of as many tokens as another; a run of one digit would have few."""


def render(plan: Plan, chunk: Chunk, *, words: Words, cache_key: str = "") -> Prompt:
    """The request for `chunk`. The same plan and chunk give the same bytes."""
    unit = "".join(render_file(file) for file in chunk.files)
    nonce = name_of(plan.nonce, chunk.evidence, unit)
    parts = [opening(words.kind), plan.shared]
    if chunk.evidence:
        parts.append(between("evidence", nonce, chunk.evidence))
    parts.append(between("unit", nonce, unit))
    if chunk.images:
        names = "".join(f"* {shown_path(image.path)}\n" for image in chunk.images)
        parts.append(between("images", nonce, f"Changed images, which follow this text in this order:\n{names}"))
    parts.append(words.reminder)
    return Prompt(
        kind=words.kind,
        system=words.system,
        user="".join(parts),
        schema=words.schema,
        input_tokens=chunk.input_tokens,
        max_output_tokens=chunk.max_output_tokens,
        cache_key=cache_key,
        without_thinking=not plan.thinks,
        images=chunk.images,
        counted_tokens=0 if chunk.images else (plan.fixed + chunk.size + chunk.evidence_size).tokens,
    )


def opening(kind: Kind) -> str:
    """The first line of the user's message."""
    return f"kind: {kind.value}\n"


def between(what: str, nonce: str, content: str) -> str:
    """`content` between marks that it cannot hold itself: they carry a hash of it."""
    if not content.endswith("\n"):
        content += "\n"
    return f"[begin {what} {nonce}]\n{content}[end {what} {nonce}]\n"


def render_file(file: ChunkFile) -> str:
    """The file's header line, its note, and its hunks."""
    return opening_text(file.id, file.path, file.note) + "".join(render_hunk(hunk) for hunk in file.hunks)


def opening_text(file_id: str, path: str, note: str) -> str:
    """The header line by which the model knows the file, and in brackets what happened to it as a whole."""
    told = f"({note})\n" if note else ""
    return f"{file_id} {shown_path(path)}\n{told}"


def render_hunk(hunk: Hunk) -> str:
    """The hunk's header, then `<new number>|<sign>|<text>`; a deleted line is `|-|<text>`."""
    out = [hunk_header(hunk)]
    number = hunk.new_start
    rows = mask(shown(hunk.body)).split("\n")
    rows.pop()
    for row in rows:
        sign = row[:1]
        if sign == "+":
            out.append(f"{number}|+|{row[1:]}\n")
            number += 1
        elif sign == "-":
            out.append(f"|-|{row[1:]}\n")
        elif sign == "\\":
            out.append(f"{row}\n")
        else:
            out.append(f"{number}| |{row[1:]}\n")
            number += 1
    return "".join(out)


def hunk_header(hunk: Hunk) -> str:
    return mask(shown(raw_header(hunk)))


def raw_header(hunk: Hunk) -> bytes:
    """The header line as git writes it, with the counts always told."""
    section = b" " + hunk.section if hunk.section else b""
    numbers = b"@@ -%d,%d +%d,%d @@" % (hunk.old_start, hunk.old_lines, hunk.new_start, hunk.new_lines)
    return b"%s%s\n" % (numbers, section)


def raw_sizes(texts: Sequence[bytes], count: Counter) -> list[Size]:
    """Of texts as they are shown, but for what rows gain."""
    plain = [text if is_plain(text) else shown(text).encode() for text in texts]
    return [Size(tokens, len(text)) for tokens, text in zip(count.each(plain), plain, strict=True)]


def raw_size(text: bytes, count: Counter) -> Size:
    return raw_sizes([text], count)[0]


def hunks_gain(hunks: Sequence[Hunk]) -> Size:
    """What the rows of `hunks` gain when they are shown."""
    tokens = size_bytes = 0
    for hunk in hunks:
        more_tokens, more_bytes = rows_gain(hunk.removed, hunk.new_start, hunk.new_lines)
        tokens += more_tokens
        size_bytes += more_bytes
    return Size(tokens, size_bytes)


def rows_gain(removed: int, first: int, numbered: int) -> tuple[int, int]:
    """Tokens and bytes that git's own rows gain when they are shown.

    There are `removed` rows, and `numbered` ones that count from `first`.

    Measured on 700,000 rows: `|-|` costs a token more than the sign alone; `|+|` with a number two and one
    for each three digits; one row in eight, which begins with punctuation, one more. Masks are never
    longer than what they hide.
    """
    last = first + numbered
    groups = numbered
    if last > 1_000:
        groups += last - max(first, 1_000) + max(0, last - max(first, 1_000_000))
    tokens = removed + 2 * numbered + groups + (removed + numbered) // 8 + 1
    return tokens, removed * 2 + numbered * (len(str(last)) + 2)


def fixed_size(words: Words, shared: str, count: Counter) -> Size:
    """Of all that every request of the job says besides its files: words, schema, marks, map."""
    marks = opening(words.kind) + between("unit", _SOME_NONCE, "") + between("evidence", _SOME_NONCE, "")
    schema = json.dumps(words.schema)
    return text_size(f"{words.system}{shared}{words.reminder}{marks}{schema}", count)
