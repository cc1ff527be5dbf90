r"""Mathematics as it is written, read into a tree of plain lists: `["+", ["symbol", "x"], ["number", "1"]]`.

This is all that a computer algebra system is ever told of an answer. What may stand here is listed: numbers,
letters, the operators, brackets, the functions below, and LaTeX's ways to write them. Nothing is evaluated:
`__import__('os')` is as little an expression as a poem is. Length, depth and digits are bounded.

Chosen where writing is ambiguous: `e` and `i` are the constants, `log` is the natural one, `xy` is x·y,
`1\frac12` is one and a half, `1,000` is a thousand, and `sin 2x` is sin(2x).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import regex as re

LONGEST, DEEPEST, DIGITS = 1000, 80, 60
Tree = list[Any]

_SAME = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp", "sqrt", "abs")
_INVERSE = {f"{arc}{each}": f"a{each}" for arc in ("arc", "a") for each in ("sin", "cos", "tan")}
FUNCTIONS = {name: name for name in _SAME} | _INVERSE | {"log": "log", "ln": "log"}
_GREEK = """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho
    sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega"""
GREEK = set(_GREEK.split())
_WORDS = """the and for are was has had not but you can per all get one two six ten so is it if in of to at as
    be by do he we us no on up an am me my"""
_ENGLISH = set(_WORDS.split())  # what three letters and less say more often than a product
CONSTANTS = {
    "pi": "pi",
    "π": "pi",
    "e": "e",
    "i": "i",
    "infty": "infinity",
    "infinity": "infinity",
    "∞": "infinity",
}

_DIGIT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_TIDY: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\(?:left|right|displaystyle|[bB]igg?[lr]?|quad)(?![A-Za-z])|\\[,;:! ()\[\]]|[$~`]"), " "),
    (re.compile(r"\\(?:text|mathrm|mbox)\s?\{[^{}]*+\}"), " "),  # units and words
    (re.compile(r"\\(?:mathbf|boldsymbol|operatorname\*?)\s?\{([^{}]*+)\}"), r"\1"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])|[×·⋅]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|[÷∕⁄]"), "/"),
    (re.compile(r"\\[lr]?vert(?![A-Za-z])"), "|"),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![A-Za-z])"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"[−–－]"), "-"),
    (re.compile(r"√"), r"\\sqrt"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])"), lambda found: found[0].replace(",", "")),
    (re.compile(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]++)"), lambda found: "^{" + found[1].translate(_DIGIT) + "}"),
]
_TOKEN = re.compile(
    r"\s*+(?:(?P<number>\d++(?:\.\d++)?|\.\d++)|\\(?P<macro>[A-Za-z]++|[{}])|(?P<word>[^\W\d_]++)|(?P<sign>\S))"
)


class Unreadable(ValueError):
    """Text that is no mathematics, or more of it than is read: why, in words."""


def read(text: str) -> Tree:
    """The tree of an expression, an equation, or several of them. Raises Unreadable."""
    if len(text) > LONGEST:
        raise Unreadable(f"it is longer than {LONGEST:,} characters")
    for pattern, instead in _TIDY:
        text = pattern.sub(instead, text)
    text = text.strip().rstrip(".").strip()
    if not text:
        raise Unreadable("it is empty")
    return _Reader(_tokens(text[: 4 * LONGEST])).whole()


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup or "sign"
        if kind == "number" and len(token[kind]) > DIGITS:
            raise Unreadable(f"it holds a number of more than {DIGITS} digits")
        if kind == "word":
            found += _words(token["word"])
        else:
            found.append((kind, token[kind]))
    return found


def _words(word: str) -> list[tuple[str, str]]:
    """A word that means something, or up to three letters that are multiplied."""
    known = word in FUNCTIONS or word in GREEK or word in CONSTANTS or word in ("and", "or")
    if not known and (len(word) > 3 or word.lower() in _ENGLISH):
        raise Unreadable(f"“{word[:40]}” is no mathematics")
    return [("word", word)] if known else [("word", letter) for letter in word]


class _Reader:
    """Reads by recursive descent; one method for each strength of binding, the weakest first."""

    def __init__(self, tokens: list[tuple[str, str]]):
        self.tokens, self.at, self.depth = tokens, 0, 0

    def whole(self) -> Tree:
        """Everything: one thing, or several between commas, “and” or “or”."""
        found = self._several()
        if self.at < len(self.tokens):
            raise Unreadable(f"“{self._next()[1]}” is not expected there")
        return found[0] if len(found) == 1 else ["set", *found]

    def _several(self) -> list[Tree]:
        found = [self._equation()]
        while self._takes(",") or self._takes(";") or self._takes("and") or self._takes("or"):
            found.append(self._equation())
        return found

    def _equation(self) -> Tree:
        """`x = 3`; of a chain the first and the last are kept."""
        found = left = self._sum()
        while self._takes("="):
            found = ["=", left, self._sum()]
        return found

    def _sum(self) -> Tree:
        found = self._product()
        while (sign := self._next()[1]) in "+-" and sign:
            self.at += 1
            found = [sign, found, self._product()]
        return found

    def _product(self, before_functions: bool = False) -> Tree:
        """Factors with a sign between them, or nothing; `before_functions`: an argument without brackets."""
        found = self._factor()
        while True:
            if self._takes("*"):
                found = ["*", found, self._factor()]
            elif self._takes("/"):
                found = ["/", found, self._factor()]
            elif self._multiplies(before_functions):
                found = ["*", found, self._power()]
            else:
                return found

    def _multiplies(self, before_functions: bool) -> bool:
        kind, text = self._next()
        if kind == "word":
            return text not in ("and", "or") and not (before_functions and text in FUNCTIONS)
        if kind == "macro":
            known = text in ("frac", "sqrt", *FUNCTIONS, *GREEK, *CONSTANTS)
            return known and not (before_functions and text in FUNCTIONS)
        return text == "("

    def _factor(self) -> Tree:
        with self._deeper():
            if self._takes("-"):
                return ["-", ["number", "0"], self._factor()]
            self._takes("+")
            return self._power()

    def _power(self) -> Tree:
        found = self._postfix()
        return ["^", found, self._factor()] if self._takes("^") else found

    def _postfix(self) -> Tree:
        found = self._atom()
        while True:
            if self._takes("%"):
                found = ["/", found, ["number", "100"]]
            elif self._takes("°"):
                found = ["/", ["*", found, ["constant", "pi"]], ["number", "180"]]
            else:
                return found

    def _atom(self) -> Tree:
        with self._deeper():
            return self._one()

    def _one(self) -> Tree:
        kind, text = self._next()
        self.at += 1
        if kind == "number":
            return self._number(text)
        if kind in ("word", "macro") and text in FUNCTIONS:
            return self._function(text)
        if kind == "macro" and text == "frac":
            return ["/", self._group(), self._group()]
        if kind == "macro" and text == "{":
            return ["set", *self._closed("}")]
        if kind in ("word", "macro") and text in CONSTANTS:
            return ["constant", CONSTANTS[text]]
        if (kind == "macro" and text in GREEK) or (kind == "word" and text not in ("and", "or")):
            return ["symbol", text + self._subscript()]
        if text in ("(", "["):
            inner = self._closed(")" if text == "(" else "]")
            return inner[0] if len(inner) == 1 else ["row", *inner]
        if text == "{":
            return self._only(self._closed("}"))
        if text == "|":
            return ["call", "abs", self._only(self._closed("|"))]
        raise Unreadable(f"“{text}” is not expected there" if text else "it breaks off")

    def _number(self, text: str) -> Tree:
        """A number, or a mixed one: `1 1/2`, `1\\frac{1}{2}`."""
        number = ["number", text]
        if not text.isdecimal():
            return number
        kind, following = self._next()
        if kind == "number" and following.isdecimal() and self._look(1) == "/" and self._look(2).isdecimal():
            self.at += 3
            return ["+", number, ["/", ["number", following], ["number", self.tokens[self.at - 1][1]]]]
        if (kind, following) == ("macro", "frac"):
            start, self.at = self.at, self.at + 1
            top, bottom = self._group(), self._group()
            if top[0] == bottom[0] == "number":
                return ["+", number, ["/", top, bottom]]
            self.at = start
        return number

    def _function(self, text: str) -> Tree:
        name, power, base = FUNCTIONS[text], None, None
        if name == "sqrt":
            if self._takes("["):
                base = self._only(self._closed("]"))
            return ["root", base or ["number", "2"], self._group()]
        if self._takes("^"):
            power = self._group()
        if name == "log" and self._takes("_"):
            base = self._group()
        if self._next()[1] in ("(", "{"):
            inner = self._group()
        else:
            inner = self._product(before_functions=True)
        found = ["call", name, inner]
        if base:
            found = ["/", found, ["call", "log", base]]
        return ["^", found, power] if power else found

    def _group(self) -> Tree:
        """What a macro takes: a bracket, or the next sign alone, of a number its first digit."""
        kind, text = self._next()
        if text in ("{", "("):
            self.at += 1
            return self._only(self._closed("}" if text == "{" else ")"))
        if kind == "number" and text.isdecimal() and len(text) > 1:
            self.tokens[self.at] = (kind, text[1:])
            return ["number", text[0]]
        return self._atom()

    def _subscript(self) -> str:
        if not self._takes("_"):
            return ""
        braced, name = self._takes("{"), ""
        while self._next()[0] in ("number", "word") and len(name) < 8:
            name += self._next()[1]
            self.at += 1
            if not braced:
                break
        if not name or (braced and not self._takes("}")):
            raise Unreadable("a subscript is not understood")
        return f"_{name}"

    def _closed(self, sign: str) -> list[Tree]:
        found = self._several()
        if not self._takes(sign):
            raise Unreadable(f"a “{sign}” is missing")
        return found

    def _only(self, found: list[Tree]) -> Tree:
        if len(found) != 1:
            raise Unreadable("several values stand where one is expected")
        return found[0]

    def _takes(self, sign: str) -> bool:
        kind, text = self._next()
        if text != sign or (kind == "macro" and sign != "}"):
            return False
        self.at += 1
        return True

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("it is nested too deeply")
        yield
        self.depth -= 1

    def _next(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "")

    def _look(self, ahead: int) -> str:
        return self.tokens[self.at + ahead][1] if self.at + ahead < len(self.tokens) else ""
