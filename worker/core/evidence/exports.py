"""Default exports of ECMAScript and CommonJS modules: whoever imports one gives it a name of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from posixpath import dirname, join, normpath
from typing import Final

from worker.core.evidence.sites import Site

_WORD: Final = r"[A-Za-z_$][\w$]*"
_QUOTED: Final = r"""["']([^"'\n]{1,300})["']"""
# Blanks where a line begins, and few characters where many could stand: a stranger wrote what is searched.
_IMPORTS: Final = (
    # `import Name from "./a"`, also with `type` before it or `{ others }` after it.
    re.compile(
        rf"^[ \t]*import[ \t]+(?:type[ \t]+)?({_WORD})[ \t]*(?:,[^;]{{0,1000}}?)?\sfrom[ \t]*{_QUOTED}", re.MULTILINE
    ),
    re.compile(
        rf"^[ \t]*import[ \t]*\{{[^}}]{{0,200}}?\bdefault as ({_WORD})[^}}]{{0,200}}\}}[ \t]*from[ \t]*{_QUOTED}",
        re.MULTILINE,
    ),
    # `const Name = require("./a")`, `const Name = lazy(() => import("./a"))`, `import Name = require("./a")`.
    re.compile(
        rf"^[ \t]*(?:export[ \t]+)?(?:const|let|var|import)[ \t]+({_WORD})[ \t]*=[^;\n]{{0,200}}?"
        rf"\b(?:require|import)\([ \t]*{_QUOTED}[ \t]*\)",
        re.MULTILINE,
    ),
)
_READ_CHARACTERS: Final = 40_000
"""Of a file's beginning, in which it imports what it uses."""
_EXTENSION: Final = re.compile(r"(?:\.d)?\.(?:[cm]?[jt]sx?|vue|svelte)$")
# Short for a folder of sources that a bundler's or compiler's settings name; `a/b` may be one such or a package.
_ALIAS: Final = re.compile(r"^[@~#]/")


def default_imports(source: str) -> Mapping[str, str]:
    """Name → the module that it stands for, as the source writes it: {"Button": "./button"}."""
    head = source[:_READ_CHARACTERS]
    return {name: module for shape in _IMPORTS for name, module in shape.findall(head)}


class DefaultExports:
    """The default exports of a repository, by the modules they make."""

    def __init__(self, sites: Iterable[Site] = ()) -> None:
        self._by_name: dict[str, list[tuple[str, Site]]] = {}
        for site in sites:
            module = _module(site.path)
            self._by_name.setdefault(_plain(module), []).append((module, site))

    def imported(self, module: str, *, used_in: str) -> Sequence[Site]:
        """Of the module that `used_in` calls so; none where it is a package of others, or not known."""
        if module.startswith("."):
            target = _module(normpath(join(dirname(used_in), module)))
            return [site for path, site in self._by_name.get(_plain(target), ()) if path == target]
        tail = _module(_ALIAS.sub("", module))
        if tail == module and "/" not in tail:
            return []
        found = self._by_name.get(_plain(tail), ())
        return [site for path, site in found if path == tail or path.endswith(f"/{tail}")]

    def named_like(self, name: str) -> Sequence[Site]:
        """Of modules whose file or folder has this name, however it is written: `DatePicker` is `date-picker.js`."""
        return [site for _, site in self._by_name.get(_plain(name), ())]


def _module(path: str) -> str:
    """`src/app/index.ts` and `src/app.js` are both `src/app`."""
    return _EXTENSION.sub("", path).removesuffix("/index")


def _plain(module: str) -> str:
    return re.sub(r"[-_.]", "", module.rpartition("/")[2]).lower()
