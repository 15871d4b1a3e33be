"""Which grammar reads which file, and which of its nodes define a name: data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final


@dataclass(frozen=True, slots=True)
class Language:
    """A grammar package and the node types that give a name, as its grammar calls them."""

    name: str
    package: str
    definitions: frozenset[str]
    """Wherever they stand."""
    bindings: frozenset[str] = frozenset()
    """Outside functions only: within one they are its local variables."""
    entry: str = "language"
    """The function of the package that gives the grammar."""

    @property
    def has_default_exports(self) -> bool:
        return self.family == "javascript"

    @property
    def family(self) -> str:
        """Languages of one family name one another's definitions."""
        return _FAMILIES.get(self.name, self.name)


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


FUNCTIONS: Final = _types(
    """function_definition function_declaration generator_function_declaration method_definition method_declaration
    constructor_declaration function_item method singleton_method arrow_function function_expression lambda
    local_function_statement closure_expression func_literal lambda_expression"""
)
"""Whose insides are nobody else's business."""

_PYTHON: Final = _types("function_definition class_definition")
_JAVASCRIPT: Final = _types(
    "function_declaration generator_function_declaration class_declaration method_definition field_definition"
)
_TYPESCRIPT: Final = _JAVASCRIPT | _types(
    """abstract_class_declaration interface_declaration type_alias_declaration enum_declaration function_signature
    method_signature abstract_method_signature public_field_definition internal_module"""
)
_GO: Final = _types("function_declaration method_declaration type_spec type_alias")
_RUST: Final = _types(
    """function_item function_signature_item struct_item enum_item union_item trait_item impl_item mod_item const_item
    static_item type_item macro_definition"""
)
_JAVA: Final = _types(
    """class_declaration interface_declaration enum_declaration record_declaration method_declaration
    constructor_declaration annotation_type_declaration"""
)
_C: Final = _types("function_definition type_definition preproc_def preproc_function_def")
_C_BINDINGS: Final = _types("struct_specifier union_specifier enum_specifier declaration")
_CPP_BINDINGS: Final = _C_BINDINGS | _types("class_specifier namespace_definition field_declaration alias_declaration")
_RUBY: Final = _types("method singleton_method class module")
_PHP: Final = _types(
    """function_definition method_declaration class_declaration interface_declaration trait_declaration
    enum_declaration const_element"""
)
_C_SHARP: Final = _types(
    """class_declaration struct_declaration interface_declaration record_declaration enum_declaration
    method_declaration constructor_declaration property_declaration delegate_declaration"""
)
_DECLARATOR: Final = _types("variable_declarator")
_GO_BINDINGS: Final = _types("const_spec var_spec")

_LANGUAGES: Final = (
    (Language("python", "tree_sitter_python", _PYTHON, _types("assignment")), ".py .pyi"),
    (Language("javascript", "tree_sitter_javascript", _JAVASCRIPT, _DECLARATOR), ".js .mjs .cjs .jsx"),
    (
        Language("typescript", "tree_sitter_typescript", _TYPESCRIPT, _DECLARATOR, "language_typescript"),
        ".ts .mts .cts",
    ),
    (Language("tsx", "tree_sitter_typescript", _TYPESCRIPT, _DECLARATOR, "language_tsx"), ".tsx"),
    (Language("go", "tree_sitter_go", _GO, _GO_BINDINGS), ".go"),
    (Language("rust", "tree_sitter_rust", _RUST), ".rs"),
    (Language("java", "tree_sitter_java", _JAVA, _types("field_declaration")), ".java"),
    (Language("c", "tree_sitter_c", _C, _C_BINDINGS), ".c .h"),
    (Language("cpp", "tree_sitter_cpp", _C, _CPP_BINDINGS), ".cc .cpp .cxx .hh .hpp .hxx .ipp"),
    (Language("ruby", "tree_sitter_ruby", _RUBY, _types("assignment")), ".rb .rake"),
    (Language("php", "tree_sitter_php", _PHP, entry="language_php"), ".php"),
    (Language("c-sharp", "tree_sitter_c_sharp", _C_SHARP), ".cs"),
)
_FAMILIES: Final = {"typescript": "javascript", "tsx": "javascript", "cpp": "c"}
LANGUAGES: Final = {suffix: language for language, suffixes in _LANGUAGES for suffix in suffixes.split()}


def language_of(path: str) -> Language | None:
    """By the file's name alone; None for what no grammar here reads."""
    return LANGUAGES.get(PurePosixPath(path).suffix.lower())


def is_foreign(path: str, other: str) -> bool:
    """Whether two files are of languages that cannot name one another's definitions; False where one is not known."""
    one, two = language_of(path), language_of(other)
    if one is None or two is None:
        return False
    return one.family != two.family
