"""A default export is found by whatever name its importers give it."""

from __future__ import annotations

import time

import pytest

from worker.core.evidence.exports import DefaultExports, default_imports
from worker.core.evidence.sites import Site

PATHS = ["src/ui/button.js", "src/ui/date-picker/index.tsx", "src/app.ts", "lib/app.ts", "src/index.js"]
EXPORTS = DefaultExports(Site(path, 1) for path in PATHS)


@pytest.mark.parametrize(
    ("row", "name", "module"),
    [
        ("import Button from './button'", "Button", "./button"),
        ('import type Button from "./button";', "Button", "./button"),
        ("import Button, { size,\n  colour } from './button'", "Button", "./button"),
        ("import { size, default as Button } from './button'", "Button", "./button"),
        ("const Button = require('./button');", "Button", "./button"),
        ("export const Button = lazy(() => import('./button'))", "Button", "./button"),
        ("import Button = require('./button')", "Button", "./button"),
    ],
)
def test_the_name_of_a_module_is_read_where_it_is_imported(row: str, name: str, module: str) -> None:
    assert default_imports(f"// first\n{row}\ncall()\n") == {name: module}


@pytest.mark.parametrize(
    "row", ["import { Button } from './button'", "import './button'", "import * as ui from './ui'", "call('./button')"]
)
def test_parts_of_a_module_are_not_the_module(row: str) -> None:
    assert default_imports(row) == {}


@pytest.mark.parametrize(
    ("module", "used_in", "meant"),
    [
        ("./button", "src/ui/form.js", ["src/ui/button.js"]),
        ("./button.js", "src/ui/form.ts", ["src/ui/button.js"]),
        ("./ui/date-picker", "src/app.ts", ["src/ui/date-picker/index.tsx"]),
        ("./date-picker/index", "src/ui/form.js", ["src/ui/date-picker/index.tsx"]),
        ("..", "src/ui/form.js", ["src/index.js"]),
        ("../app", "src/ui/form.js", ["src/app.ts"]),
        ("@/ui/button", "src/app.ts", ["src/ui/button.js"]),
        ("src/app", "test/a.ts", ["src/app.ts"]),
        ("./button", "src/app.ts", []),
        ("button", "src/ui/form.js", []),
        ("../../../../etc", "src/ui/form.js", []),
    ],
)
def test_a_module_is_the_file_that_its_importer_means(module: str, used_in: str, meant: list[str]) -> None:
    assert [site.path for site in EXPORTS.imported(module, used_in=used_in)] == meant


def test_a_module_is_known_by_its_files_name_however_that_is_written() -> None:
    assert [site.path for site in EXPORTS.named_like("DatePicker")] == ["src/ui/date-picker/index.tsx"]
    assert [site.path for site in EXPORTS.named_like("date_picker")] == ["src/ui/date-picker/index.tsx"]


@pytest.mark.parametrize(
    "source",
    ["\n" * 40_000, "import{default as a " * 2_000, "import{\n" * 5_000, "import a,\n" * 4_000, "import a =" * 4_000],
    ids=["blank", "default as", "brackets", "commas", "equals"],
)
def test_a_file_made_to_be_slow_to_search_is_not(source: str) -> None:
    started = time.process_time()
    assert default_imports(source) == {}
    assert time.process_time() - started < 1
