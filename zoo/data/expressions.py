"""Expressions that users write: parsed, checked against what is allowed, and evaluated without Python's ``eval``."""

import ast
import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

from zoo.data.hints import did_you_mean

#: Largest plain integer, so that no expression fills the memory with digits.
LARGEST_INTEGER = 2**63

_LARGEST_EXPONENT = 64

#: Most characters of an expression; a longer one could be nested deeply enough to exhaust the stack.
LONGEST = 10_000

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert}
_COMPARE = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

#: Python syntax that arrays do not support, or understand differently, with what to write instead.
_INSTEAD = {
    ast.BoolOp: "write & and | with parentheses instead of 'and' and 'or'",
    ast.Not: "write ~ instead of 'not'",
    ast.IfExp: "write a function such as where(condition, a, b) instead of 'if'",
}

_Value = Callable[[Mapping[str, Any]], Any]


def _allow(left: Any, right: Any) -> None:
    """Allow any two values."""


@dataclasses.dataclass(frozen=True)
class Language:
    """What expressions may use besides numbers, operators, subscripts, lists and variables.

    Args:
        functions: the functions by their full names, such as ``np.log``.
        constants: values by their full name, such as ``np.pi``.
        keywords: arguments that may be given by name.
        attributes: attributes of values, such as ``pt`` of four-momenta.
        methods: attributes of values that can be called, such as ``deltaR``.
        check: called with both sides of every operator; raises ValueError if they do not belong together.
    """

    functions: Mapping[str, Callable[..., Any]]
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keywords: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    check: Callable[[Any, Any], None] = _allow


@dataclasses.dataclass(frozen=True)
class Expression:
    """A checked expression; `parse` makes it.

    Args:
        text: as written.
        names: its variables, in the order in which they appear.
        evaluate: values of the variables -> value.
    """

    text: str
    names: tuple[str, ...]
    evaluate: Callable[[Mapping[str, Any]], Any]


def parse(text: str, language: Language) -> Expression:
    """Check an expression, without evaluating it.

    Names are variables unless they are functions or constants of the language; none starts with an underscore.

    Raises:
        ValueError: if it is not a Python expression, or contains anything that ``language`` does not allow; the message
            names the expression and what is wrong.

    Example:
        >>> expression = parse("2 * max(x, 3)", Language({"max": max}))
        >>> expression.names, expression.evaluate({"x": 4})
        (('x',), 8)
        >>> parse("open('x')", Language({"max": max}))
        Traceback (most recent call last):
        ...
        ValueError: in "open('x')": there is no function 'open' here; found max
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"in '{text[:40]}...': an expression has at most {LONGEST} characters, not {len(text)}; split it"
        )
    builder = _Builder(language)
    try:
        evaluate = builder.build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"in {text!r}: this is no expression ({error}); correct it") from None
    except ValueError as error:
        raise ValueError(f"in {text!r}: {error}") from None
    return Expression(text, tuple(builder.names), evaluate)


class _Builder:
    """Turns the nodes of an expression into functions of the variables, and refuses all others."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.names: dict[str, None] = {}
        self._builders: dict[type[ast.AST], Callable[[Any], _Value]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.Compare: self._compare,
            ast.Subscript: self._subscript,
            ast.Slice: self._slice,
            ast.Tuple: self._tuple,
            ast.List: self._list,
        }

    def build(self, node: ast.AST) -> _Value:
        if type(node) not in self._builders:
            hint = _INSTEAD.get(type(node), "only numbers, variables, operators, functions and subscripts are")
            raise ValueError(f"{ast.unparse(node)!r} is not allowed; {hint}")
        return self._builders[type(node)](node)

    def _constant(self, node: ast.Constant) -> _Value:
        value = node.value
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not allowed; only numbers are")
        if isinstance(value, int) and value >= LARGEST_INTEGER:
            raise ValueError(f"{value} is too large for a whole number; write it with a point")
        return lambda scope: value

    def _name(self, node: ast.Name) -> _Value:
        name = node.id
        if name in self.language.constants:
            value = self.language.constants[name]
            return lambda scope: value
        if name in self.language.functions:
            raise ValueError(f"{name!r} is a function; write its arguments in parentheses")
        if name.startswith("_"):
            raise ValueError(f"there is no {name!r} here; {did_you_mean(name, self.language.functions)}")
        self.names[name] = None
        return lambda scope: scope[name]

    def _attribute(self, node: ast.Attribute) -> _Value:
        full_name, attribute = ast.unparse(node), node.attr
        if full_name in self.language.constants:
            value = self.language.constants[full_name]
            return lambda scope: value
        if full_name in self.language.functions:
            raise ValueError(f"{full_name!r} is a function; write its arguments in parentheses")
        if self._is_of_module(full_name) or attribute not in self.language.attributes:
            known = {*self.language.constants, *self.language.functions, *self.language.attributes}
            raise ValueError(f"{full_name!r} is not allowed; {did_you_mean(full_name, known)}")
        value_of = self.build(node.value)
        return lambda scope: getattr(value_of(scope), attribute)

    def _is_of_module(self, full_name: str) -> bool:
        module = full_name.partition(".")[0]
        return any(known.startswith(f"{module}.") for known in self.language.functions)

    def _call(self, node: ast.Call) -> _Value:
        function = self._function(node.func)
        arguments = [self._argument(argument) for argument in node.args]
        keywords = {}
        for keyword in node.keywords:
            if keyword.arg not in self.language.keywords:
                name = keyword.arg or f"**{ast.unparse(keyword.value)}"
                raise ValueError(f"the argument {name!r} is not allowed; {did_you_mean(name, self.language.keywords)}")
            keywords[keyword.arg] = self._argument(keyword.value)
        return lambda scope: function(scope)(
            *(argument(scope) for argument in arguments),
            **{name: argument(scope) for name, argument in keywords.items()},
        )

    def _function(self, node: ast.AST) -> _Value:
        full_name = ast.unparse(node)
        if full_name in self.language.functions:
            function = self.language.functions[full_name]
            return lambda scope: function
        is_method = isinstance(node, ast.Attribute) and node.attr in self.language.methods
        if not is_method or self._is_of_module(full_name):
            raise ValueError(
                f"there is no function {full_name!r} here; {did_you_mean(full_name, self.language.functions)}"
            )
        value_of, method = self.build(node.value), node.attr
        return lambda scope: getattr(value_of(scope), method)

    def _argument(self, node: ast.AST) -> _Value:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return lambda scope: node.value
        return self.build(node)

    def _binary(self, node: ast.BinOp) -> _Value:
        work = self._operator(node, node.op, _BINARY)
        left, right = self.build(node.left), self.build(node.right)
        return lambda scope: _limited(work, self.language.check, left(scope), right(scope))

    def _unary(self, node: ast.UnaryOp) -> _Value:
        work, operand = self._operator(node, node.op, _UNARY), self.build(node.operand)
        return lambda scope: work(operand(scope))

    def _compare(self, node: ast.Compare) -> _Value:
        if len(node.ops) > 1:
            raise ValueError(f"{ast.unparse(node)!r} compares twice; write (a < b) & (b < c)")
        work = self._operator(node, node.ops[0], _COMPARE)
        left, right = self.build(node.left), self.build(node.comparators[0])
        return lambda scope: _checked(work, self.language.check, left(scope), right(scope))

    def _operator(self, node: ast.AST, found: ast.AST, known: Mapping[type, Callable[..., Any]]) -> Callable[..., Any]:
        if type(found) not in known:
            hint = _INSTEAD.get(type(found), "this operator is not known")
            raise ValueError(f"{ast.unparse(node)!r} is not allowed; {hint}")
        return known[type(found)]

    def _subscript(self, node: ast.Subscript) -> _Value:
        value, index = self.build(node.value), self.build(node.slice)
        return lambda scope: value(scope)[index(scope)]

    def _slice(self, node: ast.Slice) -> _Value:
        parts = [None if part is None else self.build(part) for part in (node.lower, node.upper, node.step)]
        return lambda scope: slice(*(None if part is None else part(scope) for part in parts))

    def _tuple(self, node: ast.Tuple) -> _Value:
        items = [self.build(item) for item in node.elts]
        return lambda scope: tuple(item(scope) for item in items)

    def _list(self, node: ast.List) -> _Value:
        items = [self.build(item) for item in node.elts]
        return lambda scope: [item(scope) for item in items]


def _checked(work: Callable[[Any, Any], Any], check: Callable[[Any, Any], None], left: Any, right: Any) -> Any:
    check(left, right)
    return work(left, right)


def _limited(work: Callable[[Any, Any], Any], check: Callable[[Any, Any], None], left: Any, right: Any) -> Any:
    """The value of a binary operator, unless plain numbers or lists would grow without limit."""
    for value in (left, right):
        if isinstance(value, str | list | tuple):
            raise ValueError(f"{value!r} is no number or array, so nothing can be added to it or multiplied with it")
    if work is operator.pow and isinstance(left, int) and isinstance(right, int) and right > _LARGEST_EXPONENT:
        raise ValueError(f"the exponent {right} of a whole number is too large; write the number with a point")
    result = _checked(work, check, left, right)
    if isinstance(result, int) and abs(result) > LARGEST_INTEGER:
        raise ValueError("a whole number becomes too large; write it with a point")
    return result
