"""Which files are sources that people read, though git takes the NUL in them for a binary file's.

One NUL in a comment or a string is enough for git, and PHP, JavaScript and C run such a file all the same. So a
change could hide any code behind one, were git's word the last.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import PurePosixPath
from typing import Final

from worker.core.evidence.languages import LANGUAGES


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


_SUFFIXES: Final = frozenset(LANGUAGES) | _words(
    """.asm .asp .aspx .astro .awk .bash .bat .bazel .bzl .cfg .cl .clj .cljs .cmake .cmd .conf .cshtml .css .cu .cuh
    .dart .ejs .el .erb .erl .ex .exs .f .f90 .fish .fs .fsx .glsl .gradle .graphql .groovy .haml .hbs .hcl .hrl .hs
    .htm .html .inc .ini .jl .json .json5 .jsonc .jsp .kt .kts .ksh .less .lisp .lua .m .md .mk .ml .mli .mm .module
    .nim .ninja .nix .pas .php3 .php4 .php5 .php7 .php8 .phps .pht .phtml .pl .pm .properties .proto .ps1 .psd1
    .psm1 .pug .pyx .r .rst .s .sass .scala .scm .scss .sed .service .sh .sol .sql .svelte .swift .sv .tcl .tf .thrift
    .toml .tpl .twig .txt .v .vb .vbs .vhd .vim .vue .wsf .xhtml .xml .xsl .yaml .yml .zig .zsh"""
)
_NAMES: Final = _words("brewfile dockerfile gemfile gnumakefile jenkinsfile makefile procfile rakefile")

_TELLTALES: Final = bytes(set(range(0x20)) - set(b"\t\n\r\f\v\b\x1b")) + b"\x7f"
"""Control characters that no text needs."""
_STRANGE_SHARE: Final = 0.1
"""Of a text's characters, how many may be none of a text's."""
# Text in UTF-16 of either order: of a Latin, Greek or Cyrillic character, one byte is no ASCII. Two that are may be a
# character of another script, and may be a part of hidden code in ASCII.
_ASCII: Final = rb"\x20-\x7e\t\r\n"
_UTF16: Final = re.compile(rb"(?:\xff\xfe|\xfe\xff)(?:[%b][^%b]|[^%b][\s\S])*+" % (_ASCII, _ASCII, _ASCII))


class Kind(Enum):
    """What a file is that git calls binary."""

    TEXT = "text"
    """It can be compared line by line all the same."""
    DOUBTFUL = "doubtful"
    """Named like a source, with too much in it that is no text: nobody can say that nothing was missed."""
    BINARY = "binary"
    """It is: no source by its name, or text in UTF-16, which git compares no better."""


def may_be_source(path: str) -> bool:
    """Whether the name is a source's or says nothing: then `kind_of` is to be asked."""
    return _is_named_source(path) or not PurePosixPath(path).suffix


def kind_of(path: str, content: bytes) -> Kind:
    """What `content`, the whole of a file that git calls binary, is. `path` must be one that may be a source's."""
    if _UTF16.fullmatch(content):
        return Kind.BINARY
    if _is_mostly_text(content):
        return Kind.TEXT
    return Kind.DOUBTFUL if _is_named_source(path) or content.startswith(b"#!") else Kind.BINARY


def _is_named_source(path: str) -> bool:
    place = PurePosixPath(path)
    return place.suffix.lower() in _SUFFIXES or place.name.lower() in _NAMES


def _is_mostly_text(content: bytes) -> bool:
    strange = len(content) - len(content.translate(None, _TELLTALES))
    strange += content.decode("utf-8", "replace").count("\ufffd")
    return strange <= len(content) * _STRANGE_SHARE
