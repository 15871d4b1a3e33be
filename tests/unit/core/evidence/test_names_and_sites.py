"""Which names a change uses, which lines define them, and which definition is meant."""

from __future__ import annotations

import re

import pytest

from worker.core.evidence.names import identifiers, imported_words, likely_sites
from worker.core.evidence.sites import DEFAULT, PATTERN, Site, index_sites, is_default_export, names_defined

DEFINING = {
    "def foo(x):": "foo",
    "    async def foo(self):": "foo",
    "class Foo(Base):": "Foo",
    "LIMIT: Final = 3": "LIMIT",
    "limit = compute()": "limit",
    "    window_tokens: int": "window_tokens",
    "export default class Foo extends Bar {": "Foo",
    "export const foo = (x) => {": "foo",
    "export async function* foo() {": "foo",
    "func (s *Server) Listen(addr string) error {": "Listen",
    "func Listen() {": "Listen",
    "type Server struct {": "Server",
    "pub(crate) fn parse<T>(x: T) -> T {": "parse",
    "macro_rules! vec {": "vec",
    "#define MAX_LEN 10": "MAX_LEN",
    "  # define MAX_LEN(x) x": "MAX_LEN",
    "static int parse_header(struct ctx *c)": "parse_header",
    "std::string Parser::parse(const char *text) {": "parse",
    "    public static void main(String[] args) {": "main",
    "  render(props) {": "render",
    "  def self.call(x)": "call",
    "interface Foo {": "Foo",
}
OTHER = [
    "    return foo(x)",
    "if (x) {",
    "    foo(x);",
    "} else if (bar(x)) {",
    "for item in items:",
    "    x == 3",
    "# class of its own",
    "from a import b",
    "    throw new Error(x)",
    "",
]


def as_python(posix: str) -> str:
    return posix.replace("[:blank:]", " \\t")


@pytest.mark.parametrize("row", DEFINING)
def test_a_line_that_defines_a_name_is_known_by_its_shape(row: str) -> None:
    assert names_defined(row) == [DEFINING[row]]
    assert re.search(as_python(PATTERN), row), "the search of the repository has to find it first"


@pytest.mark.parametrize("row", OTHER)
def test_a_line_that_uses_a_name_does_not_define_it(row: str) -> None:
    assert names_defined(row) == []


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("export default function () {", []),
        ("export default async function* () {", []),
        ("export default class {", []),
        ("export default class extends Base {", []),
        ("export default async (a) => {", []),
        ("export default connect(state)(View);", []),
        ("export default{", []),
        ("export default", []),
        ("export default Button;", []),
        ("export default memo(function Button(props) {", ["Button"]),
        ("export default abstract class Button {", ["Button"]),
        ("module.exports = function (a) {", []),
        ("module.exports = class Button {", ["Button"]),
        ("export = Button;", []),
    ],
)
def test_what_a_module_exports_as_a_whole_is_known_by_its_shape(row: str, names: list[str]) -> None:
    assert is_default_export(row)
    assert names_defined(row) == names
    assert re.search(as_python(PATTERN), row), "the search of the repository has to find it first"
    assert index_sites([("a.js", 3, row)]) == {name: (Site("a.js", 3),) for name in (*names, DEFAULT)}


@pytest.mark.parametrize("row", ["export const a = 1", "exports.a = b", "export { default } from './a'", "defaulted()"])
def test_a_part_of_what_a_module_exports_is_not_the_whole(row: str) -> None:
    assert not is_default_export(row)


def test_an_index_keeps_every_place_of_a_name() -> None:
    rows = [("a.py", 1, "def foo():"), ("b.py", 7, "class foo:"), ("b.py", 9, "foo()")]
    assert index_sites(rows) == {"foo": (Site("a.py", 1), Site("b.py", 7))}


def test_names_in_strings_and_comments_are_not_names_of_the_code() -> None:
    rows = ['total = price("secret_word") + price(x)  # another_word', "// third_word"]
    assert identifiers(rows) == ["price", "total"]


def test_the_words_of_imports_are_taken_over_several_lines() -> None:
    source = 'from a.b import (\n    one,\n    two,\n)\nimport c\nx = three\nconst { d } = require("./four")\n'
    words = imported_words(source)
    assert {"a", "b", "one", "two", "c", "d", "four"} <= words
    assert "three" not in words


def test_the_own_file_is_meant_first_then_what_is_imported_then_the_neighbour() -> None:
    sites = [Site("far/off.py", 1), Site("app/near.py", 2), Site("lib/tool.py", 3), Site("app/me.py", 4)]
    meant = likely_sites("go", sites, used_in="app/me.py", imported=frozenset({"tool", "go"}))
    assert meant == [Site("app/me.py", 4), Site("lib/tool.py", 3)]
    assert likely_sites("go", sites[:3], used_in="app/me.py", imported=frozenset({"tool", "go"}))[0] == sites[2]
    assert likely_sites("go", sites[:2], used_in="app/me.py", imported=frozenset())[0] == sites[1]


def test_a_name_that_is_everywhere_means_nothing_in_particular() -> None:
    sites = [Site(f"d{number}/m.py", 1) for number in range(40)]
    assert likely_sites("get", sites, used_in="app/me.py", imported=frozenset()) == []


@pytest.mark.parametrize(
    ("used_in", "there", "is_meant"),
    [("a.py", "b.js", False), ("a.ts", "b.js", True), ("a.c", "b.cpp", True), ("a.html", "b.js", True)],
)
def test_a_definition_in_a_language_that_cannot_be_meant_is_none(used_in: str, there: str, is_meant: bool) -> None:
    sites = likely_sites("foo", [Site(there, 1)], used_in=used_in, imported=frozenset())
    assert sites == ([Site(there, 1)] if is_meant else [])


@pytest.mark.parametrize(
    "aside", ["vendor/x/parse.h", "deps/x/parse.h", "node_modules/x/parse.h", "third_party/parse.h", "docs/parse.html"]
)
def test_code_of_others_is_meant_only_where_no_source_defines_the_name(aside: str) -> None:
    source, other = Site("tools/far/parse.c", 1), Site(aside, 1)
    assert likely_sites("parse", [other, source], used_in="src/app.c", imported=frozenset({"parse"})) == [source]
    assert likely_sites("parse", [other], used_in="src/app.c", imported=frozenset()) == [other]


def test_code_of_others_means_its_own_first() -> None:
    inside, source = Site("vendor/x/parse.h", 1), Site("src/parse.c", 1)
    assert likely_sites("parse", [source, inside], used_in="vendor/x/a.c", imported=frozenset())[0] == inside


@pytest.mark.parametrize("path", ["README.md", "docs/usage.rst", "notes.txt"])
def test_prose_defines_nothing(path: str) -> None:
    assert likely_sites("limit", [Site(path, 3)], used_in="src/app.py", imported=frozenset()) == []
