"""What changed lines name and where the repository defines it, by Python's own parser: independent of the program."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Place:
    """The line on which a name is defined. Counts from 1."""

    path: str
    line: int


@dataclass(frozen=True)
class Module:
    """One file of the head."""

    path: str
    everything: Mapping[str, tuple[int, ...]]
    """Functions, classes, methods, and what modules and classes assign: name → lines."""
    top: Mapping[str, tuple[int, ...]]
    """Of those, what the module itself has."""
    imports: Mapping[str, tuple[str, str]]
    """Local name → (module as written, dots included, name there)."""


def read_module(path: str, source: bytes) -> Module | None:
    """None for what Python cannot parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    everything: dict[str, list[int]] = {}
    top: dict[str, list[int]] = {}
    imports: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            everything.setdefault(node.name, []).append(node.lineno)
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                imports[alias.asname or alias.name] = (module, alias.name)
        if isinstance(node, ast.Module | ast.ClassDef):
            for inner in node.body:
                for name in _bound(inner):
                    if isinstance(inner, ast.Assign | ast.AnnAssign):
                        everything.setdefault(name, []).append(inner.lineno)
                    if isinstance(node, ast.Module):
                        top.setdefault(name, []).append(inner.lineno)
    return Module(path, _frozen(everything), _frozen(top), imports)


def _bound(node: ast.stmt) -> Iterable[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _frozen(found: Mapping[str, list[int]]) -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(lines) for name, lines in found.items()}


def names_on(source: bytes, lines: frozenset[int]) -> set[str]:
    """NAME tokens on these lines, keywords apart."""
    names: set[str] = set()
    try:
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type == tokenize.NAME and token.start[0] in lines and not keyword.iskeyword(token.string):
                names.add(token.string)
    except (tokenize.TokenError, SyntaxError):
        return names
    return names


@dataclass(frozen=True)
class Repository:
    """All modules of the head."""

    modules: Mapping[str, Module]

    def anywhere(self, name: str) -> set[Place]:
        """Every definition of that name."""
        return {
            Place(module.path, line) for module in self.modules.values() for line in module.everything.get(name, ())
        }

    def meant(self, name: str, path: str) -> set[Place]:
        """What `name` in `path` means, as far as scopes and imports say it: its module's own, or an imported one."""
        module = self.modules.get(path)
        seen: set[tuple[str, str]] = set()
        while module is not None and (module.path, name) not in seen:
            seen.add((module.path, name))
            if name in module.top:
                return {Place(module.path, line) for line in module.top[name]}
            if name not in module.imports:
                return set()
            origin, name = module.imports[name]
            module = self._module(origin, module.path)
        return set()

    def _module(self, origin: str, path: str) -> Module | None:
        level = len(origin) - len(origin.lstrip("."))
        rest = [part for part in origin.lstrip(".").split(".") if part]
        here = list(PurePosixPath(path).parent.parts)
        parts = [*here[: len(here) - level + 1], *rest] if level else rest
        for candidate in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
            if candidate in self.modules:
                return self.modules[candidate]
        return None
