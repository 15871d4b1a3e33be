"""The stand-in's whole knowledge: patterns that are faults by their shape alone, looked for in one line of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PYTHON = (".py", ".pyi", ".pyx")
_SCRIPT = (".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".vue")


@dataclass(frozen=True, slots=True)
class Check:
    """`reads_strings` is for what stands inside string literals; the others look at code alone."""

    pattern: re.Pattern[str]
    severity: str
    category: str
    title: str
    body: str
    suffixes: tuple[str, ...] = ()
    """Files it applies to; all when empty."""
    reads_strings: bool = False


CHECKS: tuple[Check, ...] = (
    Check(
        re.compile(r"^\s*except\s*:"),
        "medium",
        "error-handling",
        "Bare except catches every exception",
        "This handler also catches KeyboardInterrupt and SystemExit, so a stop request is swallowed here."
        " Name the exceptions that can be answered.",
        _PYTHON,
    ),
    Check(
        re.compile(r"\bdef\s+\w+\s*\(.*=\s*(?:\[\s*\]|\{\s*\}|(?:list|dict|set)\(\s*\))"),
        "medium",
        "bug",
        "Mutable default argument is shared between calls",
        "The default is made once, when the function is defined: a call that changes it changes the default of all"
        " later calls. Use None and make the value inside.",
        _PYTHON,
    ),
    Check(
        re.compile(r"[=!]=\s*None\b"),
        "low",
        "bug",
        "Comparison with None by equality",
        "Equality can be redefined by the other operand, and array types answer it element by element."
        " Compare with `is None` or `is not None`.",
        _PYTHON,
    ),
    Check(
        re.compile(r"(?<![\w.])(?:eval|exec)\s*\(\s*(?!\))"),
        "high",
        "security",
        "Text is executed as code",
        "Whoever controls the text controls the process. Parse the value instead (ast.literal_eval, a JSON parser).",
        _PYTHON,
    ),
    Check(
        re.compile(r"(?<![\w.])eval\s*\(\s*(?!\))|\bnew\s+Function\s*\("),
        "high",
        "security",
        "Text is executed as code",
        "Whoever controls the text controls the page or the process. Parse the value instead (JSON.parse).",
        _SCRIPT,
    ),
    Check(
        re.compile(
            r"\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{40,}|"
            r"\bglpat-[A-Za-z0-9_-]{20}\b|\bxox[abprs]-[A-Za-z0-9-]{20,}|\bsk-[A-Za-z0-9_-]{32,}|"
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
        ),
        "critical",
        "security",
        "A secret is written into the repository",
        "The value has the shape of a live credential, and history keeps it after it is deleted."
        " Revoke it and read it from the environment.",
        reads_strings=True,
    ),
    Check(
        re.compile(
            r"\bf[\"']{1,3}\s*(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM)\b[^\"']*\{|"
            r"[\"']\s*(?:SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM)\b[^\"]*[\"']\s*(?:%|\+|\.format\()|"
            r"`\s*(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM)\b[^`]*\$\{",
            re.IGNORECASE,
        ),
        "high",
        "security",
        "SQL is built from strings",
        "A value with a quote in it ends the literal and continues the statement. Pass values as parameters.",
        reads_strings=True,
    ),
    Check(
        re.compile(r"\bshell\s*=\s*True\b"),
        "high",
        "security",
        "A command goes through the shell",
        "Spaces, quotes and semicolons in any part of the command are read by the shell."
        " Pass a list of arguments without shell=True.",
        _PYTHON,
    ),
    Check(
        re.compile(r"\bverify\s*=\s*False\b|\bInsecureSkipVerify\s*:\s*true\b|\brejectUnauthorized\s*:\s*false\b"),
        "high",
        "security",
        "Certificate verification is switched off",
        "Anybody on the way can read and change this connection. Leave verification on and trust the right authority.",
    ),
    Check(
        re.compile(r"\byaml\.load\s*\((?!.*Loader)"),
        "high",
        "security",
        "YAML is loaded with a loader that builds objects",
        "A crafted document runs code while it is read. Use yaml.safe_load.",
        _PYTHON,
    ),
    Check(
        re.compile(r"\.read_text\(\s*\)|\.write_text\((?:[^(),]|\([^()]*\))+\)\s*$"),
        "low",
        "bug",
        "The encoding of a text file is left to the machine",
        "Before Python 3.15 it is the locale's, so the same file may read differently elsewhere. Say encoding='utf-8'.",
        _PYTHON,
    ),
    Check(
        re.compile(r"^(?:<{7} \S|>{7} \S)"),
        "critical",
        "bug",
        "A merge conflict marker is left in the file",
        "The file cannot be parsed as it stands. Resolve the conflict and remove the markers.",
        reads_strings=True,
    ),
)

# Documentation's own examples of credentials, which every scanner leaves out.
_EXAMPLE = re.compile(r"EXAMPLE|example|xxxx|XXXX|0{8}|1234567890")


def faults_in(text: str, *, path: str) -> Iterator[Check]:
    """The checks that one line of the file at `path` fails."""
    code = code_of(text, path=path)
    for check in CHECKS:
        if check.suffixes and not path.endswith(check.suffixes):
            continue
        found = check.pattern.search(text if check.reads_strings else code)
        if found and not (check.reads_strings and _EXAMPLE.search(found.group())):
            yield check


def code_of(text: str, *, path: str) -> str:
    """`text` with the insides of its string literals blanked and its comment cut off, as far as one line shows."""
    comment = "#" if path.endswith((*_PYTHON, ".rb", ".sh", ".yml", ".yaml", ".toml")) else "//"
    out: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if quote:
            if char == "\\":
                out.append("  ")
                position += 2
                continue
            if char == quote:
                quote = ""
                out.append(char)
            else:
                out.append(" ")
        elif char in "\"'`":
            quote = char
            out.append(char)
        elif text.startswith(comment, position):
            break
        else:
            out.append(char)
        position += 1
    return "".join(out)
