"""What a path alone tells of a file: words for people, code of others, or what a program built from sources."""

from __future__ import annotations

import re
from posixpath import splitext
from typing import Final


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


DOCUMENTS: Final = _names(".md .rst .txt .adoc .po .pot .csv .tsv .svg .html")
_PAGES: Final = _names(".svg .html")
_VENDORED_FOLDERS: Final = _names(
    """vendor node_modules bower_components jspm_packages third_party thirdparty third-party 3rdparty godeps pods
    carthage .bundle"""
)
_VENDORED_PATH: Final = re.compile(r"(?:^|/)(?:\.yarn/(?:releases|plugins)|(?:\.mvn|gradle)/wrapper)(?:/|$)")
# Often others' code, and often enough one's own that it is reviewed all the same.
_OTHERS_FOLDERS: Final = _names("deps external externals extern extlibs submodules site-packages venv .venv")
_BUILT_FOLDERS: Final = _names("dist build out bundle bundles")
_SOURCE_FOLDERS: Final = _names("src source sources")
_BUILT_NAMES: Final = re.compile(r"(?<!\.config)(?<!\.conf)\.(?:[cm]?js|css|d\.[cm]?ts)$", re.IGNORECASE)


def is_prose(path: str) -> bool:
    """Read by people, so its words name nothing. A page is for a browser and may hold code."""
    ending = splitext(path)[1].lower()
    return ending in DOCUMENTS and ending not in _PAGES


def is_vendored(path: str) -> bool:
    """In a folder that holds nothing but others' code."""
    folder = path.rpartition("/")[0]
    return not _VENDORED_FOLDERS.isdisjoint(folder.lower().split("/")) or _VENDORED_PATH.search(folder) is not None


def is_built_place(path: str) -> bool:
    """Scripts and styles in a folder that build tools write to; people keep scripts there too.

    Among sources, `src/build/`, such a folder is named for what its code does.
    """
    folders = _folders(path)
    is_built = not _BUILT_FOLDERS.isdisjoint(folders) and _SOURCE_FOLDERS.isdisjoint(folders)
    return is_built and _BUILT_NAMES.search(path) is not None


def telling_parts(path: str) -> frozenset[str]:
    """The file's name, and those of its folders that hold others' code or built files: whoever names one means it."""
    *folders, name = path.split("/")
    telling = _VENDORED_FOLDERS | _BUILT_FOLDERS
    return frozenset([name, *(folder for folder in folders if folder.lower() in telling)])


def is_aside(path: str) -> bool:
    """Seldom what a name in other code means: a document, a page, others' code, or a copy that was built."""
    if splitext(path)[1].lower() in DOCUMENTS or is_vendored(path) or is_built_place(path):
        return True
    return not _OTHERS_FOLDERS.isdisjoint(_folders(path))


def _folders(path: str) -> list[str]:
    return path.lower().split("/")[:-1]
