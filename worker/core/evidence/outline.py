"""A source file → where its definitions begin, end, and keep their signature."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import tree_sitter

from worker.core.evidence.languages import FUNCTIONS, Language, language_of
from worker.core.evidence.sites import DEFAULT, is_default_export, names_defined

MAX_BYTES: Final = 400_000
MAX_LINE: Final = 5_000
"""Longer lines are data or minified; no reader wants them as evidence."""
# Steps of the parser (a hundred operations each), not seconds: the same file has the same outline on any machine.
_MAX_STEPS: Final = 30_000
_MAX_NODES: Final = 400_000
_MAX_DEFINITIONS: Final = 4_000
_SIGNATURE_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class Definition:
    """Lines count from 1, ends are included. `signature_end` is the signature's last line."""

    name: str
    start: int
    end: int
    signature_end: int

    @property
    def lines(self) -> int:
        return self.end - self.start + 1


@dataclass(frozen=True, slots=True)
class Outline:
    """Definitions in the order of their first lines; of one that holds another, the outer one first."""

    definitions: tuple[Definition, ...] = ()
    default: Definition | None = None
    """What the file exports as a whole, called `DEFAULT`; among `definitions` too where it has no name of its own."""

    def enclosing(self, line: int) -> Sequence[Definition]:
        """What holds `line`, outermost first."""
        return [found for found in self.definitions if found.start <= line <= found.end]

    def named(self, name: str, line: int) -> Definition | None:
        """The definition of `name` whose signature holds `line`; of `DEFAULT` wherever it stands."""
        if name == DEFAULT:
            return self.default
        for found in self.definitions:
            if found.name == name and found.start <= line <= found.signature_end:
                return found
        return None


def outline(path: str, source: bytes) -> Outline:
    """The outline of one file; empty when it is too large, or not text, or nothing in it is known.

    A file that a grammar reads is parsed, however broken; any other is read line by line, by the shapes that
    definitions commonly have. Never raises for what a file holds.
    """
    if not _is_readable(source):
        return Outline()
    language = language_of(path)
    found = _parsed(language, source) if language is not None else None
    return found or _guessed(source)


def guessed_outline(source: bytes) -> Outline:
    """`outline` without a grammar: for any language, and for files that a grammar could not finish."""
    return _guessed(source) if _is_readable(source) else Outline()


def _is_readable(source: bytes) -> bool:
    return len(source) <= MAX_BYTES and b"\0" not in source and all(len(row) <= MAX_LINE for row in source.split(b"\n"))


def _ordered(found: Sequence[Definition], default: Definition | None) -> Outline:
    if default is not None and not any((it.start, it.end) == (default.start, default.end) for it in found):
        found = [*found, default]
    return Outline(tuple(sorted(found, key=lambda item: (item.start, -item.end))), default)


@functools.cache
def _grammar(language: Language) -> tree_sitter.Language:
    package = importlib.import_module(language.package)
    return tree_sitter.Language(getattr(package, language.entry)())


class _Steps:
    """Ends a parse that goes on for too long."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, *_: object) -> bool:
        self.taken += 1
        return self.taken > _MAX_STEPS


def _parsed(language: Language, source: bytes) -> Outline | None:
    """None where nothing is found, or the parse took too long."""

    def slice_of(offset: int, point: object) -> bytes:
        del point
        return source[offset : offset + 65_536]

    try:
        tree = tree_sitter.Parser(_grammar(language)).parse(slice_of, progress_callback=_Steps())
    except ValueError:  # how the binding says that the callback ended the parse
        return None
    found = [found for node in _defining(tree, language) if (found := _definition(node, source)) is not None]
    default = _default_export(tree, source, found) if language.has_default_exports else None
    return _ordered(found, default) if found or default is not None else None


def _defining(tree: tree_sitter.Tree, language: Language) -> Iterator[tree_sitter.Node]:
    """Nodes that define a name, in the order of the text.

    Walked by hand: a query has no bound that holds. Nesting made for it takes a query minutes, and its own
    progress callback ends the process (tree-sitter 0.26.1).
    """
    cursor = tree.walk()
    inside: list[bool] = []
    for _ in range(_MAX_NODES):
        node = cursor.node
        if node is None:
            return
        is_local = bool(inside) and inside[-1]
        if node.is_named and (node.type in language.definitions or (not is_local and node.type in language.bindings)):
            yield node
        if cursor.goto_first_child():
            inside.append(is_local or node.type in FUNCTIONS)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            inside.pop()


def _definition(node: tree_sitter.Node, source: bytes) -> Definition | None:
    name = _name(node)
    if name is None:
        return None
    outer = node
    # Decorators, `export` and a declaration's keyword stand around what they belong to.
    while outer.parent is not None and outer.parent.type in _WRAPPERS and outer.parent.child_count <= _FEW_CHILDREN:
        outer = outer.parent
    body = node.child_by_field_name("body")
    if body is None:
        value = node.child_by_field_name("value")
        body = value.child_by_field_name("body") if value is not None else None
    # C++ defines a member outside its class as `Class::member`.
    word = source[name.start_byte : name.end_byte].decode("utf-8", "replace").rpartition("::")[2]
    return _spanning(word, outer, body, source)


def _spanning(name: str, outer: tree_sitter.Node, body: tree_sitter.Node | None, source: bytes) -> Definition:
    """The lines of `outer`, whose signature goes as far as `body`, or to its end where it has none."""
    start, end = outer.start_point[0] + 1, max(outer.end_point[0] + 1 - (outer.end_point[1] == 0), 1)
    signature_end = end
    if body is not None:
        # A body that opens with a bracket, or goes on behind the signature, shares its first line with it.
        line, column = body.start_point
        before = source[body.start_byte - column : body.start_byte]
        opens = source[body.start_byte : body.start_byte + 1] in b"{(["
        signature_end = line + 1 if opens or before.strip() else line
    signature_end = max(start, min(signature_end, end, start + _SIGNATURE_LINES - 1))
    return Definition(name, start, max(end, start), signature_end)


def _default_export(tree: tree_sitter.Tree, source: bytes, found: Sequence[Definition]) -> Definition | None:
    """`export default …`, `module.exports = …` or `export = …`, of which the last one counts."""
    for node in reversed(tree.root_node.named_children):
        exported = _exported(node, source)
        if exported is None:
            continue
        if exported.type == "identifier":
            # `export default Button;` says nothing more; where Button is defined it is told what that is.
            word = source[exported.start_byte : exported.end_byte].decode("utf-8", "replace")
            named = next((each for each in found if each.name == word), None)
            if named is not None:
                return replace(named, name=DEFAULT)
        body = exported.child_by_field_name("body")
        return _spanning(DEFAULT, node, body or exported, source)
    return None


def _exported(node: tree_sitter.Node, source: bytes) -> tree_sitter.Node | None:
    """The value or declaration that a statement of a file's top exports as a whole."""
    if node.type == "export_statement":
        if not any(child.type in ("default", "=") for child in node.children[:_MOST_MARKS]):
            return None
        named = node.child_by_field_name("declaration") or node.child_by_field_name("value")
        return named or next((child for child in reversed(node.named_children[:_MOST_MARKS])), None)
    inner = next(iter(node.named_children[:1]), None)
    if node.type != "expression_statement" or inner is None or inner.type != "assignment_expression":
        return None
    left, right = inner.child_by_field_name("left"), inner.child_by_field_name("right")
    is_module = left is not None and source[left.start_byte : left.end_byte] == b"module.exports"
    return right if is_module else None


_MOST_MARKS: Final = 12
"""Decorators and words before what is exported."""


_WRAPPERS: Final = frozenset(
    {
        "decorated_definition",
        "export_statement",
        "lexical_declaration",
        "variable_declaration",
        "type_declaration",
        "const_declaration",
        "var_declaration",
        "template_declaration",
        "type_definition",
    }
)
_FEW_CHILDREN: Final = 4
_NAME_FIELDS: Final = ("name", "declarator", "left", "type", "property")
_NAME_DEPTH: Final = 8


def _name(node: tree_sitter.Node) -> tree_sitter.Node | None:
    """The identifier that a definition gives; declarators of C hide it some levels down."""
    for _ in range(_NAME_DEPTH):
        if node.type.endswith("identifier") or node.type in ("constant", "name", "word"):
            return node
        inner = next((child for field in _NAME_FIELDS if (child := node.child_by_field_name(field))), None)
        if inner is None:
            # A pointer's declarator of C and a constant of PHP stand without a field.
            inner = next(
                (child for child in node.named_children[:4] if "declarator" in child.type or child.type == "name"), None
            )
        if inner is None:
            return None
        node = inner
    return None


_INDENT: Final = re.compile(r"[ \t]*")


def _guessed(source: bytes) -> Outline:
    """By shape and indentation: a definition ends before the next line that is indented no deeper."""
    rows = source.decode("utf-8", "replace").split("\n")
    found: list[Definition] = []
    default: Definition | None = None
    for index, row in enumerate(rows):
        if is_default_export(row):
            default = Definition(DEFAULT, index + 1, _end(rows, index) + 1, index + 1)
        for name in names_defined(row):
            found.append(Definition(name, index + 1, _end(rows, index) + 1, index + 1))
        if len(found) > _MAX_DEFINITIONS:
            break
    return _ordered(found, default)


def _end(rows: Sequence[str], index: int) -> int:
    indent = _width(rows[index])
    last = index
    for later in range(index + 1, min(index + 400, len(rows))):
        row = rows[later]
        if not row.strip():
            continue
        if _width(row) <= indent:
            # A closing bracket belongs to what it closes.
            return later if row.strip()[:1] in "})]" or row.strip() == "end" else last
        last = later
    return last


def _width(row: str) -> int:
    match = _INDENT.match(row)
    return len(match.group().expandtabs(4)) if match else 0
