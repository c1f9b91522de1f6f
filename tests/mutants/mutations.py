# SPDX-License-Identifier: Apache-2.0

"""The faults that are put into a source file, each in one place."""

import ast
import dataclasses
import difflib
import hashlib
from collections.abc import Collection, Iterator, Sequence

NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
# What Python checks or prints, and no flow depends on.
IGNORED_FIELDS = {"annotation", "returns", "decorator_list", "bases"}
IGNORED = (ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr)
IGNORED_CALLS = ("LOG.", "warnings.")
NO_CONTEXT = "__import__('contextlib').nullcontext()"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One fault: ``old``, at an offset of the source, becomes ``new``."""

    path: str
    first_line: int
    last_line: int
    what: str
    offset: int
    old: str
    new: str
    #: Tells mutants apart as long as their file stays as it is.
    key: str

    def apply(self, source: str) -> str:
        """Return the source of the file with this fault."""
        end = self.offset + len(self.old)
        return source[: self.offset] + self.new + source[end:]

    def diff(self, source: str) -> str:
        """Return the lines that change, as a diff shows them."""
        lines = difflib.unified_diff(
            source.splitlines(), self.apply(source).splitlines(), n=0
        )
        return "\n".join(list(lines)[3:])


#: A node, the text that replaces it, and what fault that is.
Change = tuple[ast.expr | ast.stmt, str, str]


def mutants(
    path: str, source: str, lines: Collection[int] | None = None
) -> list[Mutant]:
    """Return all faults for a file, or those that touch the given lines."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    found = {}
    for node, new, what in _changes(ast.parse(source)):
        last_line = node.end_lineno or node.lineno
        begin = _offset(source, node.lineno, node.col_offset)
        end = _offset(source, last_line, node.end_col_offset or 0)
        touched = range(node.lineno, last_line + 1)
        if lines is None or set(touched) & set(lines):
            key = f"{path}:{digest}:{begin}:{end}:{new}"
            place = (path, node.lineno, last_line, what, begin)
            found[key] = Mutant(*place, source[begin:end], new, key)
    return list(found.values())


def _offset(source: str, line: int, column: int) -> int:
    lines = source.splitlines(keepends=True)
    # ast counts columns in bytes of UTF-8.
    text = lines[line - 1].encode()[:column].decode()
    return sum(map(len, lines[: line - 1])) + len(text)


def _changes(tree: ast.AST) -> Iterator[Change]:
    for node in _code(tree):
        if isinstance(node, ast.stmt):
            yield from _of_statement(node)
        if isinstance(node, ast.With):
            yield from _of_with(node)
        if isinstance(node, ast.Try):
            yield from _of_try(node)
        if isinstance(node, ast.expr):
            yield from _of_expression(node)
        for condition in _conditions(node):
            negated = ast.UnaryOp(ast.Not(), condition)
            yield condition, _text(negated), "a condition is negated"


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    for field, value in ast.iter_fields(tree):
        for node in value if isinstance(value, list) else [value]:
            if field in IGNORED_FIELDS or not isinstance(node, ast.AST):
                continue
            if not isinstance(node, IGNORED) and not _is_ignored_call(node):
                yield node
                yield from _code(node)


def _is_ignored_call(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr):
        return False
    docstring = isinstance(node.value, ast.Constant)
    return docstring or ast.unparse(node.value).startswith(IGNORED_CALLS)


def _of_statement(node: ast.stmt) -> Iterator[Change]:
    match node:
        case ast.Expr(value=ast.Yield() | ast.YieldFrom()):
            pass
        case ast.Expr():
            yield node, "pass", "a call is dropped"
        case ast.Raise():
            yield node, "pass", "an error is not raised"
        case ast.AugAssign() | ast.Delete():
            yield node, "pass", "a change is dropped"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "pass", "a change is dropped"
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield value, "None", "None is returned"
        case ast.Continue():
            yield node, "break", "a loop ends early"
        case ast.Break():
            yield node, "continue", "a loop goes on"


def _of_with(node: ast.With) -> Iterator[Change]:
    for item in node.items:
        if item.optional_vars is None:
            yield item.context_expr, NO_CONTEXT, "a context is not entered"


def _of_try(node: ast.Try) -> Iterator[Change]:
    for handler in node.handlers:
        first = handler.body[0]
        if not isinstance(first, ast.Raise):
            yield first, "raise", "an error is not handled"


def _conditions(node: ast.AST) -> Sequence[ast.expr]:
    match node:
        case ast.If() | ast.While() | ast.IfExp():
            found = [node.test]
        case ast.comprehension():
            found = node.ifs
        case _:
            return ()
    # Comparisons and the like are negated wherever they are.
    elsewhere = (ast.Compare, ast.Constant, ast.UnaryOp)
    return [each for each in found if not isinstance(each, elsewhere)]


def _of_expression(node: ast.expr) -> Iterator[Change]:
    match node:
        case ast.BoolOp(op=op, values=values):
            for dropped in values:
                kept = [each for each in values if each is not dropped]
                text = _text(ast.BoolOp(op, kept) if kept[1:] else kept[0])
                yield node, text, "a part of a condition is dropped"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, _text(operand), "a condition is negated"
        case ast.Compare():
            yield from _of_comparison(node)
        case ast.BinOp(left=left, op=op, right=right):
            new = OPERATORS.get(type(op))
            if new and not _is_text(left) and not _is_text(right):
                text = _text(ast.BinOp(left, new(), right))
                yield node, text, "an operator is changed"
        case ast.Constant(value=bool() as value):
            yield node, str(not value), "a constant is changed"
        case ast.Constant(value=int() | float() as value):
            # A limit that is a little longer is no fault.
            other = value + 1 if value in range(10) else value * 4
            yield node, str(other), "a constant is changed"


def _of_comparison(node: ast.Compare) -> Iterator[Change]:
    tables = [NEGATED]
    if "second" not in ast.unparse(node):  # no two times are equal
        tables.append(BOUNDARY)
    for table in tables:
        if len(node.ops) == 1 and type(node.ops[0]) in table:
            op = table[type(node.ops[0])]()
            text = _text(ast.Compare(node.left, [op], node.comparators))
            yield node, text, "a comparison is changed"


def _text(node: ast.expr) -> str:
    # In brackets, whatever the node is part of; on one line.
    return f"({ast.unparse(node)})"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.expr) -> bool:
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return text or isinstance(node, ast.JoinedStr)
