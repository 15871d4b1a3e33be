"""Definitions are found in every language that has a grammar, and by the shape of lines in the others."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.evidence.languages import LANGUAGES
from worker.core.evidence.outline import MAX_BYTES, guessed_outline, outline

SAMPLES: dict[str, tuple[bytes, str]] = {
    ".py": (
        b"""A: int = 1

@cached
def foo(
    x,
):
    y = 1
    return y

class Bar(Base):
    z = 2
""",
        "A foo Bar z",
    ),
    ".js": (
        b"""export const a = 1
function foo(x) {
  const y = 1
}
class Bar {
  baz() {}
}
""",
        "a foo Bar baz",
    ),
    ".ts": (
        b"""interface I { m(): void }
type T = string
export abstract class Bar { p: T = 1; f(): T { return 1 } }
""",
        "I m T Bar p f",
    ),
    ".tsx": (
        b"""export const View = () => <div/>
enum E { A }
""",
        "View E",
    ),
    ".go": (
        b"""package p

const C = 1

var (
	V = 2
)

type S struct{}

func (s *S) M() int {
	x := 1
	return x
}
""",
        "C V S M",
    ),
    ".rs": (
        b"""const C: u8 = 1;
struct S;
impl S {
    fn m(&self) {}
}
macro_rules! mac { () => {} }
""",
        "C S m mac",
    ),
    ".java": (
        b"""public class A {
  private int f = 1;
  A() {}
  int m(int x) {
    int y = x;
    return y;
  }
}
""",
        "A f m",
    ),
    ".c": (
        b"""#define MAX 3
typedef struct s { int x; } s_t;
static char *name(int a)
{
  int local = 1;
  return 0;
}
""",
        "MAX s_t name",
    ),
    ".cpp": (
        b"""namespace n {
class K {
  int m();
};
template <class T> T K::go(T t) { return t; }
}
""",
        "n K m go",
    ),
    ".rb": (
        b"""module M
  LIMIT = 1
  class K
    def go(x)
      y = 1
    end
    def self.up; end
  end
end
""",
        "M LIMIT K go up",
    ),
    ".php": (
        b"""<?php
class K {
  const C = 1;
  function go($x) { return 1; }
}
function f() {}
""",
        "K C go f",
    ),
    ".cs": (
        b"""namespace N {
  public class K {
    public int P { get; set; }
    int Go(int x) { return x; }
  }
}
""",
        "K P Go",
    ),
    ".ex": (
        b"""defmodule M do
  def go(x) do
    x
  end
end
""",
        "M go",
    ),
    ".swift": (
        b"""class K {
    func go(x: Int) {
        x
    }
}
""",
        "K go",
    ),
}


@pytest.mark.parametrize("suffix", SAMPLES)
def test_the_definitions_of_a_file_are_found_and_local_variables_are_not(suffix: str) -> None:
    source, names = SAMPLES[suffix]
    found = [definition.name for definition in outline(f"a{suffix}", source).definitions]
    assert set(names.split()) <= set(found)
    assert not {"local", "y", "x", "s", "t"} & set(found) - {"s"}


def test_every_grammar_has_a_sample() -> None:
    by_grammar = {LANGUAGES[suffix].name for suffix in SAMPLES if suffix in LANGUAGES}
    assert by_grammar == {language.name for language in LANGUAGES.values()}


def test_a_signature_ends_where_the_body_begins() -> None:
    found = {definition.name: definition for definition in outline("a.py", SAMPLES[".py"][0]).definitions}
    assert (found["foo"].start, found["foo"].signature_end, found["foo"].end) == (3, 6, 8)
    found = {definition.name: definition for definition in outline("a.c", SAMPLES[".c"][0]).definitions}
    assert (found["name"].start, found["name"].signature_end, found["name"].end) == (3, 4, 7)


@pytest.mark.parametrize(
    ("name", "source", "lines"),
    [
        ("a.js", b"x()\nexport default function () {\n  y()\n}\n", (2, 2, 4)),
        ("a.ts", b"export default class<T>\n  extends B<T> {\n  f(): T { return 1 }\n}\n", (1, 2, 4)),
        ("a.tsx", b"export default async (a: A) => {\n  return <p/>\n}\n", (1, 1, 3)),
        ("a.jsx", b"export default memo(function V() {\n  return <p/>\n})\n", (1, 1, 3)),
        ("a.js", b"function go(\n  a\n) {\n}\n\nexport default go;\n", (1, 3, 4)),
        ("a.js", b"module.exports = {\n  a: 1,\n};\n", (1, 1, 3)),
        ("a.ts", b"function go() {\n}\nexport = go;\n", (1, 1, 2)),
        ("a.vue", b"<script>\nexport default {\n  name: 'a',\n}\n</script>\n", (2, 2, 4)),
    ],
)
def test_what_a_module_exports_as_a_whole_is_found_though_it_has_no_name(
    name: str, source: bytes, lines: tuple[int, int, int]
) -> None:
    found = outline(name, source).named("default", 99)
    assert found is not None
    assert (found.start, found.signature_end, found.end) == lines


def test_an_export_without_a_name_holds_its_lines_and_one_with_a_name_is_told_once() -> None:
    source = b"export default function () {\n  y()\n}\n"
    assert [found.name for found in outline("a.js", source).enclosing(2)] == ["default"]
    source = b"export default function go() {\n  y()\n}\n"
    assert [found.name for found in outline("a.js", source).enclosing(2)] == ["go"]
    assert outline("a.py", b"def f(): pass\n").named("default", 1) is None


def test_what_encloses_a_line_is_named_from_the_outside_in() -> None:
    source = b"class A:\n    def f(self):\n        def g():\n            return 1\n        return g\n"
    assert [found.name for found in outline("a.py", source).enclosing(4)] == ["A", "f", "g"]
    assert outline("a.py", source).enclosing(99) == []


def test_a_guess_ends_a_definition_with_its_indentation_or_bracket() -> None:
    found = {item.name: item for item in guessed_outline(SAMPLES[".swift"][0]).definitions}
    assert (found["K"].start, found["K"].end) == (1, 5)
    assert (found["go"].start, found["go"].end) == (2, 4)


@pytest.mark.parametrize(
    "source",
    [b"def f():\n" * (MAX_BYTES // 5), b"def f(): pass\n\0", b"def f(): '" + b"x" * 6_000 + b"'\n"],
    ids=["too large", "binary", "a very long line"],
)
def test_what_no_reader_wants_has_no_outline(source: bytes) -> None:
    assert outline("a.py", source).definitions == ()
    assert guessed_outline(source).definitions == ()


@pytest.mark.parametrize(
    ("name", "unit"),
    [("a.py", b"("), ("a.cpp", b"{"), ("a.js", b"[{("), ("a.php", b"${"), ("a.java", b"@a("), ("a.rb", b"<<A\n")],
)
def test_nesting_made_to_hurt_costs_little(name: str, unit: bytes) -> None:
    hostile = unit * (100_000 // len(unit))
    hostile = b"\n".join(hostile[at : at + 4_000] for at in range(0, len(hostile), 4_000))
    started = time.process_time()
    outline(name, hostile)
    assert time.process_time() - started < 2


@given(
    st.sampled_from(sorted(LANGUAGES)),
    st.binary(max_size=60),
    st.integers(min_value=0, max_value=80),
)
def test_broken_files_give_lines_that_exist(suffix: str, noise: bytes, at: int) -> None:
    source, _ = SAMPLES.get(suffix, SAMPLES[".py"])
    broken = source[:at] + noise + source[at:]
    rows = broken.count(b"\n") + 1
    for found in outline(f"a{suffix}", broken).definitions:
        assert 1 <= found.start <= found.signature_end <= found.end <= rows
