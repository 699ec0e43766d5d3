"""What users write in formulas is worked out, and nothing else is ever run."""

import operator

import pytest

from zoo.data.expressions import LONGEST, Language, parse


class Vector:
    """Something with attributes, of which some may be asked for."""

    pt = 5.0
    secret = "key"

    def delta(self, other):
        return self.pt - other


LANGUAGE = Language(
    functions={"np.hypot": lambda x, y: (x * x + y * y) ** 0.5, "max": max, "_clip": lambda x, low, high: x},
    constants={"np.pi": 3.0},
    keywords=frozenset({"default"}),
    attributes=frozenset({"pt"}),
    methods=frozenset({"delta"}),
)
VALUES = {"x": 3.0, "y": 4.0, "n": 6, "rows": [1, 2, 3, 4], "v": Vector()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x + 2 * y - 1", 10.0),
        ("-x ** 2 / 2", -4.5),
        ("n % 4 + n // 4", 3),
        ("(n & 3) | 8 ^ 1", 11),
        ("~n", -7),
        ("x <= 3", True),
        ("x != 3", False),
        ("np.hypot(x, y)", 5.0),
        ("max([x, y, np.pi], default=2)", 4.0),
        ("_clip(x, None, True)", 3.0),
        ("rows[1:3]", [2, 3]),
        ("rows[-1]", 4),
        ("v.pt + v.delta(1)", 9.0),
        ("\n  x +\\\n  y\n", 7.0),
    ],
)
def test_values(text, value):
    assert parse(text, LANGUAGE).evaluate(VALUES) == value


def test_names_are_those_of_variables():
    assert parse("np.hypot(x, v.pt) + np.pi * x - y", LANGUAGE).names == ("x", "v", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", 'there is no function "__import__'),
        ("open('x')", "there is no function 'open' here; found _clip, max, np.hypot"),
        ("x.__class__", "'x.__class__' is not allowed"),
        ("v.secret", "'v.secret' is not allowed"),
        ("v.delta.__globals__", "is not allowed"),
        ("np.hypot.__globals__", "is not allowed"),
        ("np.load", "'np.load' is not allowed"),
        ("np.linalg.norm(x)", "there is no function 'np.linalg.norm' here"),
        ("(lambda: 1)()", "there is no function"),
        ("lambda: 1", "'lambda: 1' is not allowed"),
        ("[x for x in rows]", "is not allowed"),
        ("{x: y}", "is not allowed"),
        ("f'{x}'", "is not allowed"),
        ("(x := 1)", "is not allowed"),
        ("await x", "is not allowed|is no expression"),
        ("max(*rows)", "'\\*rows' is not allowed"),
        ("max(**v)", "the argument '\\*\\*v' is not allowed"),
        ("max(rows, key=x)", "the argument 'key' is not allowed"),
        ("x and y", "write & and |"),
        ("not x", "write ~ instead of 'not'"),
        ("x if y else n", "write a function such as where"),
        ("1 < x < 5", r"write \(a < b\) & \(b < c\)"),
        ("x in rows", "this operator is not known"),
        ("n << 3", "this operator is not known"),
        ("np.hypot", "'np.hypot' is a function; write its arguments"),
        ("max", "'max' is a function; write its arguments"),
        ("_x", "there is no '_x' here"),
        ("'a' * 9", "'a' is not allowed; only numbers are"),
        ("rows['a']", "'a' is not allowed"),
        ("1j", "1j is not allowed"),
        ("99999999999999999999", "too large for a whole number"),
        ("x = 1", "this is no expression"),
        ("import os", "this is no expression"),
        ("x; y", "this is no expression"),
        ("", "this is no expression"),
        ("(" * 500 + "x" + ")" * 500, "this is no expression"),
        ("-" * 9000 + "x", "this is no expression"),
        ("x" * (LONGEST + 1), f"at most {LONGEST} characters"),
    ],
)
def test_anything_else_is_refused_before_it_is_worked_out(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, LANGUAGE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9 ** 9 ** 9", "the exponent 387420489 of a whole number is too large"),
        ("9 ** 60", "becomes too large"),
        ("[1] * 9999999999", "is no number or array"),
        ("(x, y) + (x, y)", "is no number or array"),
    ],
)
def test_nothing_grows_without_limit(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, LANGUAGE).evaluate(VALUES)


def test_powers_of_arrays_and_broken_numbers_are_free():
    assert parse("2.0 ** 70", LANGUAGE).evaluate({}) == operator.pow(2.0, 70)
