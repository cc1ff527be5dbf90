r"""Numbers as they are written: `1,000`, `1.234,56`, `3 1/2`, `\frac{3}{4}`, `-$5`, `50 %`, `3×10^5`.

`places` finds them from left to right, and `quantity` reads each as an exact fraction. A number is read in
one pass: everything repeated in the patterns is possessive and what is optional is short, so that 100,000
characters of anything take ten times as long as 10,000. What is left out: numbers in words, times and ratios
like 3:30, dates, exponents of units (cm^2), digits of names (H2O), and digits past a size that no answer has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import regex as re  # the possessive repeats of Python 3.11.2 lose characters

DIGITS = 300  # of a number, at the most
EXPONENT = 300
GAPS = "\u00a0\u202f\u2009"  # no-break, narrow and thin space
VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅒": (1, 10),
}  # fmt: skip
SCALES = {"hundred": 2, "thousand": 3, "k": 3, "million": 6, "billion": 9, "trillion": 12}

_RUN = rf"(?:\d++(?:[.,'’_{GAPS}]\d++)*+|(?<![\w.])\.\d++)"
_SMALL = r"\d{1,15}+"
_RAISED = r"(?:\^|\*\*)\s?\{?\s?(?P<ten>[+-]?\d++)|(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]++)"
_TEN = rf"\s?[×x*·]\s?10\s?(?:{_RAISED})"
_QUANTITY = re.compile(
    rf"""
    (?: (?<![A-Za-z\d_\\^]) | (?<=USD) | (?<=EUR) | (?<=GBP) | (?<=INR) | (?<=Rs) )
    (?<!\^\{{) (?<!\^-) (?<!\^\{{-) (?<![A-Za-z)\]]\*\*)       # the exponents of units and powers
    (?<!\d[.,'’_{GAPS}:/])                                     # the rest of what was passed over
    (?:
      (?: (?P<whole>{_SMALL}) \s? )?
        (?: \\frac \s? \{{ \s? (?P<top>-?{_RUN}) \s? \}} \s? \{{ \s? (?P<bottom>{_RUN}) \s? \}}
          | \\frac \s? (?P<top1>\d) \s? (?P<bottom1>\d)
          | (?P<vulgar>[{"".join(VULGAR)}])
        )
    | (?P<wholes>{_SMALL}) (?: [ \u00a0] | \sand\s ) (?P<part>{_SMALL}) [/⁄∕] (?P<of>{_SMALL}) (?! \s?/\s?\d )
    | (?P<over>{_RUN}) \s? [/⁄∕] \s? (?P<under>{_RUN}) (?! \s? / \s? \d )
    | (?P<run>{_RUN}) (?! \s? / \s? \d | :\d )
      (?: [eE] (?P<e>[+-]?\d++) (?!\w)
        | {_TEN} \s? \}}?
        | (?: \^ \{{? \s? | \*\* ) (?P<power>-?\d++) \s? \}}?
      )?
    )
    (?: \s? (?: (?P<percent> % | (?i: per\s?cent\b) ) | (?P<scale> (?i: {"|".join(SCALES)} ) s?\b ) ) )?
    """,
    re.VERBOSE,
)
_SIGN = re.compile(
    r"(?:(?P<dash>[-–])|(?i:(?P<word>minus|negative)\s))(?P<gap>\s?)"
    r"(?:(?:US|CA|A|R|HK)?[$€£¥₹₽]|USD|EUR|GBP|INR|Rs\.?)?\s?[({\[]?\s?$"
)
_ROOT = re.compile(r"√\s?(?:\[\d{1,3}\])?\s?[{(]?\s?-?$")
_FACTOR = re.compile(r"\s?[)}]?\s?[*×·]?\s?[√π]")
_DIGIT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_PLAIN = [
    (re.compile(r"<<[^<>\n]*+>>"), ""),  # GSM8K's calculator notes
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|mbox)\s?\{([^{}\\]*+)\}"), r" \1 "),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\,"), "\u2009"),
    (re.compile(r"\\[;: ]|~"), " "),
    (re.compile(r"\{([.,])\}"), r"\1"),
    (re.compile(r"\\([$%&#_])"), r"\1"),
    (re.compile(r"\\[dtc]?frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),
    (re.compile(r"\\div(?![A-Za-z])"), "÷"),
    (re.compile(r"\\pm(?![A-Za-z])"), "±"),
    (re.compile(r"\\(?:approx|simeq)(?![A-Za-z])"), "≈"),
    (re.compile(r"\\sqrt(?![A-Za-z])"), "√"),
    (re.compile(r"\\pi(?![A-Za-z])"), "π"),
    (re.compile(r"\\(?!frac(?![A-Za-z]))[A-Za-z]++"), " "),
]
_SAME = str.maketrans("−－﹣‐‑＄％，．", "-----$%,.")


@dataclass(frozen=True)
class Quantity:
    """A number and where it stands; without a value where its digits mean nothing that could be compared."""

    value: Fraction | None
    start: int
    end: int
    percent: bool = False


def plain(text: str) -> str:
    """The text without what LaTeX and typography put around numbers."""
    text = text.translate(_SAME)
    for pattern, instead in _PLAIN:
        text = pattern.sub(instead, text)
    return text


def places(text: str) -> Iterator[re.Match[str]]:
    """Where the numbers of a plain text are; `quantity` tells what each one is."""
    return _QUANTITY.finditer(text)


def quantity(found: re.Match[str], bare: bool = False) -> Quantity:
    """What a place says; of a root or of a multiple of π nothing, for those are no numbers of digits.
    `bare`: a dash at the very beginning is a sign, and not the mark of a list."""
    text, start, end = found.string, found.start(), found.end()
    irrational = _FACTOR.match(text, end) or _ROOT.search(text, max(0, start - 12), start)
    value = None if irrational else _value(found)
    if value is not None and found["scale"]:
        value *= 10 ** SCALES[found["scale"].lower().removesuffix("s")]
    if value is not None and _negative(text, start, bare):
        value = -value
    return Quantity(value, start, end, bool(found["percent"]))


def said(value: Fraction) -> str:
    """The number as a person would write it."""
    if value.denominator == 1:
        digits = str(value.numerator)
        return digits if len(digits) <= 30 else f"{digits[:6]}… ({len(digits.lstrip('-'))} digits)"
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1 and value.denominator < 10**12:
        places = 0
        while (value * 10**places).denominator != 1:
            places += 1
        digits = str(abs((value * 10**places).numerator)).rjust(places + 1, "0")
        return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    text = f"{value.numerator}/{value.denominator}"
    return text if len(text) <= 40 else f"{text[:38]}…"


def _value(found: re.Match[str]) -> Fraction | None:
    if found["run"]:
        return _raised(found)
    if found["over"]:
        return _divided(_numeral(found["over"]), _numeral(found["under"]))
    if found["part"]:
        part = _divided(Fraction(found["part"]), Fraction(found["of"]))
        return None if part is None or part >= 1 else Fraction(found["wholes"]) + part
    if found["vulgar"]:
        part = Fraction(*VULGAR[found["vulgar"]])
    elif found["top1"]:
        part = _divided(Fraction(found["top1"]), Fraction(found["bottom1"]))
    else:
        top = found["top"]
        part = _divided(_numeral(top.removeprefix("-")), _numeral(found["bottom"]))
        part = -part if part is not None and top.startswith("-") else part
    return part if part is None or not found["whole"] else Fraction(found["whole"]) + part


def _raised(found: re.Match[str]) -> Fraction | None:
    """A number with its power, of ten or of itself."""
    value = _numeral(found["run"])
    if value is None:
        return None
    ten = found["e"] or found["ten"] or (found["raised"] or "").translate(_DIGIT)
    if ten:
        return value * Fraction(10) ** int(ten) if len(ten) < 5 and abs(int(ten)) <= EXPONENT else None
    if not found["power"]:
        return value
    if len(found["power"]) > 5:
        return None
    power = int(found["power"])
    size = max(value.numerator.bit_length(), value.denominator.bit_length()) * abs(power)
    return None if size > 4 * DIGITS or (power < 0 and not value) else value**power


def _divided(top: Fraction | None, bottom: Fraction | None) -> Fraction | None:
    return top / bottom if top is not None and bottom else None


def _numeral(run: str) -> Fraction | None:
    """Digits with their separators. A comma before three digits parts thousands, one before any other number
    of digits is a decimal comma, as is one behind a lone 0; of both, the last one is the decimal one."""
    if len(run) > DIGITS:
        return None
    if run.isdecimal():
        return Fraction(int(run))
    for grouped, decimal in _FORMS:
        if found := grouped.fullmatch(run):
            whole = "".join(each for each in found["whole"] if each.isdecimal())
            return Fraction(f"{int(whole or 0)}.{found['rest']}") if decimal else Fraction(int(whole))
    return None


_FORMS = [
    (re.compile(form), "rest" in form)
    for form in (
        r"(?P<whole>\d*)\.(?P<rest>\d+)",
        r"(?P<whole>[1-9]\d{0,2}(?:,\d{3})+)",
        r"(?P<whole>[1-9]\d{0,2}(?:,\d{3})+)\.(?P<rest>\d+)",
        r"(?P<whole>[1-9]\d?(?:,\d{2})+,\d{3})",
        r"(?P<whole>[1-9]\d?(?:,\d{2})+,\d{3})\.(?P<rest>\d+)",
        r"(?P<whole>\d+),(?P<rest>\d+)",
        r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3}){2,})",
        r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+),(?P<rest>\d+)",
        rf"(?P<whole>[1-9]\d{{0,2}}(?:[{GAPS}'’_]\d{{3}})+)",
        rf"(?P<whole>[1-9]\d{{0,2}}(?:[{GAPS}'’_]\d{{3}})+)[.,](?P<rest>\d+)",
    )
]


def _negative(text: str, start: int, bare: bool) -> bool:
    """Whether what stands before a number is its sign: no operator, no hyphen, no mark of a list."""
    begin = max(0, start - 24)
    found = _SIGN.search(text, begin, start)
    if not found:
        return False
    before = text[begin : found.start()]
    left = before.rstrip(" \t")
    if found["word"]:
        operand = left and (left[-1].isdigit() or left[-1] in ")]}%")
        return found["word"].lower() == "negative" or not operand
    at_start = not left or left[-1] == "\n"
    if found["gap"]:
        return (bare and not left and begin == 0) or (not at_start and left[-1] in "=:(≈<>")
    if at_start:
        return True
    return left[-1] not in ")]}%°" and not left[-1].isdigit() and (left != before or not left[-1].isalpha())
