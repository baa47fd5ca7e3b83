"""What may be sabotaged in a module: a condition, a bound, a call, a refusal, a clean-up."""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

BOUNDS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
}
OPPOSITES: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
OTHER_ENDS = {"min": "max", "max": "min"}
UNTOUCHED = {"__repr__", "__str__"}
"""Functions for readers only."""
_REPORTS = re.compile(r"^_?log\.|telemetry\.|metrics\.")
_SHORT = 24
"""Characters that do not show where they are."""
_Edit = tuple[str, ast.AST, str]
"""An operator, the node or the list of statements that it changes, and the new text."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """One sabotage of one module.

    Attributes:
        function: The qualified name of the function that it is in.
        operator: The kind of sabotage, or the name of a sabotage that is listed by name.
        number: Which one it is of those that are alike in all else.
        start: Where in the code it begins, in bytes.
        text: What is there instead.
    """

    module: str
    function: str
    operator: str
    number: int
    start: int
    end: int
    text: str
    code: bytes = field(repr=False)

    @cached_property
    def key(self) -> str:
        """Return what names it as long as its text and its function stay."""
        source = " ".join(self.code[self.start : self.end].decode().split())
        if len(source) < _SHORT:
            before, after = self.code[: self.start], self.code[self.start :]
            line = before.rpartition(b"\n")[2] + after.partition(b"\n")[0]
            source += f" in {line.decode().strip()}"
        number = f" #{self.number}" if self.number else ""
        return f"{self.module}:{self.function} | {self.operator} | {source}{number}"

    @cached_property
    def order(self) -> str:
        """Return what samples are sorted by: the same in each run, whatever lies around it."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def applied(self) -> bytes:
        """Return the module's code with the sabotage in it."""
        return self.code[: self.start] + self.text.encode() + self.code[self.end :]


def mutants(module: str, code: bytes) -> Iterator[Mutant]:
    """Yield all sabotages of a module."""
    finder = _Finder(code.decode())
    seen: Counter[str] = Counter()
    for function, (operator, node, text) in finder.found():
        start, end = finder.span(node)
        mutant = Mutant(module, function, operator, 0, start, end, text, code)
        yield replace(mutant, number=seen[mutant.key])
        seen[mutant.key] += 1


def functions(code: str) -> Iterator[tuple[str, _Function]]:
    """Yield the functions of a module with their qualified names, as code objects have them."""
    yield from _functions(ast.parse(code), "")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield prefix + child.name, child
            yield from _functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


class _Finder:
    def __init__(self, code: str) -> None:
        self._code = code
        self._bytes = code.encode()
        lines = self._bytes.splitlines(keepends=True)
        self._starts = list(accumulate(map(len, lines), initial=0))

    def found(self) -> Iterator[tuple[str, _Edit]]:
        for name, function in functions(self._code):
            if function.name not in UNTOUCHED:
                for node in _own(function):
                    for edit in self._edits(node, function):
                        yield name, edit

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return where a node begins and ends, in bytes."""
        assert isinstance(node, ast.stmt | ast.expr | _Block)
        end_line, end_column = node.end_lineno, node.end_col_offset
        assert end_line is not None
        assert end_column is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[end_line - 1] + end_column,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self._bytes[start:end].decode()

    def _edits(self, node: ast.AST, function: _Function) -> Iterator[_Edit]:
        yield from self._conditions(node)
        yield from self._values(node)
        yield from self._statements(node, function)
        yield from _cleanups(node)

    def _conditions(self, node: ast.AST) -> Iterator[_Edit]:
        tests: list[ast.expr] = []
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            tests = [node.test]
        elif isinstance(node, ast.comprehension):
            tests = node.ifs
        for test in tests:
            if not isinstance(test, ast.Constant) and not _has_opposite(test):
                yield "negate", test, self._negated(test)
        if isinstance(node, ast.BoolOp):
            old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            values = [f"({self._text(value)})" for value in node.values]
            yield f"{old} to {new}", node, f"({f' {new} '.join(values)})"

    def _negated(self, test: ast.expr) -> str:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return f"({self._text(test.operand)})"
        return f"(not ({self._text(test)}))"

    def _values(self, node: ast.AST) -> Iterator[_Edit]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield from self._compared(node)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            yield "add", node, f"({self._text(node.left)} + {self._text(node.right)})"
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in OTHER_ENDS:
                yield "other end", node.func, OTHER_ENDS[name]
            if name == "asyncio.shield":
                yield "unshield", node, self._text(node.args[0])
        for number in _bounds(node):
            yield "off by one", number, f"({self._text(number)} + 1)"

    def _compared(self, node: ast.Compare) -> Iterator[_Edit]:
        (operator,), (right,) = node.ops, node.comparators
        for name, pairs in (("bound", BOUNDS), ("opposite", OPPOSITES)):
            if type(operator) in pairs:
                new = pairs[type(operator)][1]
                yield name, node, f"({self._text(node.left)} {new} {self._text(right)})"

    def _statements(self, node: ast.AST, function: _Function) -> Iterator[_Edit]:
        if isinstance(node, ast.Return) and node.value and not _is_none(node.value):
            if _has_opposite(node.value):
                pass
            elif function.returns and ast.unparse(function.returns) == "bool":
                yield "opposite answer", node.value, self._negated(node.value)
            elif not isinstance(node.value, ast.Constant):
                yield "no answer", node.value, "None"
        elif _does_something(node, function):
            yield "drop", node, "pass"
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("suppress"):
                    yield "unsuppress", call, f"{ast.unparse(call.func)}()"


class _Block(ast.AST):
    """Statements that follow each other."""

    def __init__(self, statements: list[ast.stmt]) -> None:
        super().__init__()
        first, last = statements[0], statements[-1]
        self.lineno, self.col_offset = first.lineno, first.col_offset
        self.end_lineno, self.end_col_offset = last.end_lineno, last.end_col_offset


def _own(function: _Function) -> Iterator[ast.AST]:
    """Yield all nodes of a function's body but those of functions and classes inside it."""
    waiting: list[ast.AST] = list(reversed(function.body))
    while waiting:
        node = waiting.pop()
        # Reports are no spine, and what is inside an f-string has no positions before Python 3.12.
        if isinstance(node, _Function | ast.ClassDef | ast.JoinedStr) or _is_report(node):
            continue
        yield node
        waiting += reversed(list(ast.iter_child_nodes(node)))


def _is_report(node: ast.AST) -> bool:
    """Whether a node only writes a line of the log, or counts what a metric shows."""
    if not isinstance(node, ast.Expr):
        return False
    call = node.value.value if isinstance(node.value, ast.Await) else node.value
    return isinstance(call, ast.Call) and bool(_REPORTS.search(ast.unparse(call.func)))


def _has_opposite(node: ast.expr) -> bool:
    """Whether a node is sabotaged as a comparison already."""
    return isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPPOSITES


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _does_something(node: ast.AST, function: _Function) -> bool:
    """Whether a statement acts or decides, and its lack is no mere missing attribute."""
    if isinstance(node, ast.Expr):
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        return isinstance(call, ast.Call)
    if isinstance(node, ast.Assign):
        is_kept = any(isinstance(one, ast.Attribute | ast.Subscript) for one in node.targets)
        return is_kept and function.name != "__init__"
    return isinstance(node, ast.AugAssign | ast.Delete | ast.Raise | ast.Continue | ast.Break)


def _bounds(node: ast.AST) -> Iterable[ast.Constant]:
    """Return the whole numbers that a node computes, compares or cuts with."""
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Slice):
        parts = [node.lower, node.upper]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"range", *OTHER_ENDS}:
        parts = [*node.args]
    return [one for one in parts if isinstance(one, ast.Constant) and type(one.value) is int]


def _cleanups(node: ast.AST) -> Iterator[_Edit]:
    """Yield what is done after a failure: of more statements than one, which `drop` has."""
    if isinstance(node, ast.Try) and len(node.finalbody) > 1:
        yield "drop finally", _Block(node.finalbody), "pass"
    if isinstance(node, ast.ExceptHandler):
        is_answer = isinstance(node.body[0], ast.Return)
        if len(node.body) > 1 or is_answer:
            yield "drop except", _Block(node.body), "raise"
