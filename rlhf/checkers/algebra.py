"""The computer algebra of the symbolic checker: a child process that compares trees of `grammar.py` by sympy.

    {"reference": tree, "answer": tree, "tolerance", "positive", "seconds"}
        -> {"stage": "answer"}   the reference has been understood
        -> {"equal": bool} or {"unreadable": words}

It is a program of its own, run by its path: what it imports is sympy alone. For every question the kernel is
told to end this process once it has computed for so many seconds, whatever it is at and whether or not
anybody waits; powers that no machine could hold are refused before. How text becomes a tree is told in
`grammar.py`.
"""

import contextlib
import json
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import sympy

BITS = 20_000  # of a number that is raised to a power
POWER = 10_000
POINTS, ENOUGH = 24, 6  # where two expressions are held against each other, and how many have to tell
DIGITS, ROUNDING, NOTHING = 30, 1e-20, 1e-80
MEMORY = 2 << 30

Tree = list[Any]
CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infinity": sympy.oo}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    each: getattr(sympy, each)
    for each in (
        "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp", "asin", "acos", "atan", "log"
    )
} | {"abs": sympy.Abs}  # fmt: skip


class Unreadable(ValueError):
    """A tree that means nothing that could be compared."""


def built(tree: Tree, positive: bool) -> Any:
    """The sympy expression of a tree without lists or equations in it."""
    kind = tree[0]
    if kind == "number":
        return sympy.Rational(tree[1])
    if kind == "symbol":
        return sympy.Symbol(tree[1], positive=positive or None)
    if kind == "constant":
        return CONSTANTS[tree[1]]
    if kind in ("row", "set", "="):
        raise Unreadable("a list or an equation stands within an expression")
    if kind == "call":
        return FUNCTIONS[tree[1]](built(tree[2], positive))
    one, other = built(tree[1], positive), built(tree[2], positive)
    if kind == "root":
        return _power(other, 1 / one)
    if kind == "^":
        return _power(one, other)
    return {
        "+": lambda: one + other,
        "-": lambda: one - other,
        "*": lambda: one * other,
        "/": lambda: one / other,
    }[kind]()


def _power(base: Any, exponent: Any) -> Any:
    """A power that a machine can hold."""
    if exponent.is_number and exponent.is_finite is not False:
        size = abs(complex(exponent.evalf(15)))
        bits = max(abs(base.p).bit_length(), base.q.bit_length()) if base.is_Rational else 1
        if size > POWER or size * bits > BITS:
            raise Unreadable("a power in it is too large")
    return base**exponent


def equal(answer: Tree, reference: Tree, options: dict[str, Any], say: Callable[[dict], None]) -> bool:
    """Whether both are the same; lists in brackets value by value, others in any order. Raises Unreadable."""
    rights = [_side(each, options) for each in _parts(reference)]
    for value, _ in rights:
        next(_values(value, value, options), None)  # what takes for ever is the reference's own fault
    say({"stage": "answer"})
    given = [_side(each, options) for each in _parts(answer)]
    if _shape(answer) != _shape(reference) or len(given) != len(rights):
        return False
    if _shape(reference) == "row":
        return all(_same(one, other, options) for one, other in zip(given, rights, strict=True))
    left = list(rights)
    for one in given:
        match = next((place for place, other in enumerate(left) if _same(one, other, options)), None)
        if match is None:
            return False
        del left[match]
    return True


def _shape(tree: Tree) -> str:
    return tree[0] if tree[0] in ("row", "set") and len(tree) > 2 else ""


def _parts(tree: Tree) -> list[Tree]:
    return tree[1:] if tree[0] in ("row", "set") else [tree]


def _side(tree: Tree, options: dict[str, Any]) -> tuple[Any, Any]:
    """`(value, name)` of an expression or of `x = …`; `(left − right, None)`, an Eq, of another equation."""
    if tree[0] != "=":
        return built(tree, options["positive"]), ""
    left, right = (built(each, options["positive"]) for each in tree[1:])
    if left.is_Symbol and left not in right.free_symbols:
        return right, left.name
    if not left.free_symbols:  # 3 + 4 = 7: what it comes to; 7 = x the other way about
        return (left, right.name) if right.is_Symbol else (right, "")
    return left - right, None


def _same(one: tuple[Any, Any], other: tuple[Any, Any], options: dict[str, Any]) -> bool:
    (value, name), (right, named) = one, other
    if name is None or named is None:
        return name is named and _proportional(value, right, options)
    if name and named and name != named:
        return False
    return _everywhere(value, right, options)


def _everywhere(one: Any, other: Any, options: dict[str, Any]) -> bool:
    """Whether two expressions have the same values: at every one of the points where both have any."""
    if one == other:
        return True
    told = 0
    for a, b in _values(one, other, options):
        if not _near(a, b, options["tolerance"]):
            return False
        told += 1
    if told == ENOUGH or (told and not (one.free_symbols | other.free_symbols)):
        return True
    return bool(sympy.simplify(one - other) == 0)


def _proportional(one: Any, other: Any, options: dict[str, Any]) -> bool:
    """Whether two equations, each as left less right, are the same but for a factor."""
    pairs = [(a, b) for a, b in _values(one, other, options) if abs(a) > 1e-9 or abs(b) > 1e-9]
    if not pairs or any(abs(b) < 1e-12 for _, b in pairs):
        return False
    ratio = pairs[0][0] / pairs[0][1]
    return abs(ratio) > 1e-12 and all(_near(a, ratio * b, max(options["tolerance"], 1e-12)) for a, b in pairs)


def _values(one: Any, other: Any, options: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Both values at points that are always the same, as far as they are finite numbers there."""
    symbols = sorted(one.free_symbols | other.free_symbols, key=lambda each: each.name)
    chance, told = random.Random(7), 0
    for number in range(POINTS if symbols else 1):
        point = {each: sympy.Rational(chance.randint(3, 60), 17) for each in symbols}
        if not options["positive"]:  # the signs in turn: of two symbols ++, -+, +-, --
            for place, each in enumerate(symbols):
                point[each] *= (-1) ** (number >> place % 3 & 1)
        pair = tuple(_number(each.subs(point)) for each in (one, other))
        if None not in pair:
            yield pair
            told += 1
        if told == ENOUGH:
            return


def _number(expression: Any) -> Any:
    value = sympy.N(expression, DIGITS)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        return None
    real, imaginary = value.as_real_imag()
    return sympy.Float(real, DIGITS) + sympy.I * sympy.Float(imaginary, DIGITS)


def _near(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two values are equal but for their rounding; as sympy's numbers, which do not overflow."""
    sizes = [abs(one), abs(other)]
    if all(each < NOTHING for each in sizes):
        return True
    return bool(abs(one - other) <= max(tolerance, ROUNDING) * max(sizes))


def answer(question: dict[str, Any], say: Callable[[dict], None]) -> dict[str, Any]:
    """One question's answer; a stage is said on the way."""
    try:
        return {"equal": equal(question["answer"], question["reference"], question, say)}
    except Unreadable as error:
        return {"unreadable": str(error)}
    except (MemoryError, RecursionError):
        return {"unreadable": "it takes too much memory"}
    except (ArithmeticError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        return {"unreadable": f"sympy makes nothing of it ({type(error).__name__})"}


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # where there is no such limit, the time alone holds
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its parent's matter, whose end is its end

    def say(message: dict) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    say({"ready": True})
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, question["seconds"])
        said = answer(question, say)
        signal.setitimer(signal.ITIMER_PROF, 0)
        say(said)


if __name__ == "__main__":
    main()
