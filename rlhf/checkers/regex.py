"""A regular expression, within a time: either the reference is one, or the options have one whose last match
in the answer is compared with the reference.

The `regex` package counts the time itself and needs no signal, so a pattern that backtracks for ever ends in
words, in any thread. Patterns are written by whoever runs the project; answers are only searched.
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from rlhf.checkers.checker import CannotCheck, Checked, Checker, shown
from rlhf.checkers.exact import Exact
from rlhf.setting import Refused, setting

LONGEST = 2000  # characters of a pattern


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Regex(Checker):
    """A pattern that the answer has to match, or whose match has to be the reference."""

    name: ClassVar[str] = "regex"
    pattern: str = setting(
        "", "Pattern", "Its last match or group 1 has to be the reference. Without, references are patterns.")
    whole: bool = setting(
        False, "The whole answer", "The pattern has to match all of the answer, not a part of it.")
    ignore_case: bool = setting(True, "Ignore capitals", "Letters match in both cases.")
    seconds: float = setting(
        1.0, "Time for an answer", "An answer that takes longer to search is not correct.",
        0.01, 10, advanced=True, unit="seconds")
# fmt: on

    def check(self) -> None:
        if self.pattern:
            try:
                _compiled(self.pattern, self.ignore_case)
            except ValueError as error:
                why = f"“{shown(self.pattern)}” is no regular expression: {error}."
                raise Refused("pattern", why) from None

    def compare(self, prompt: str, answer: str, reference: str) -> Checked:
        if not reference.strip():
            raise CannotCheck("The reference is empty.")
        try:
            pattern = _compiled(self.pattern or reference, self.ignore_case)
        except ValueError as error:
            raise CannotCheck(f"“{shown(reference)}” is no regular expression: {error}.") from None
        try:
            found = self._found(pattern, answer)
        except TimeoutError:
            return Checked(False, f"The pattern was still at it after {self.seconds:g} s.")
        if found is None:
            return Checked(False, "The pattern is not found in the answer.")
        if not self.pattern:
            return Checked(True, f"The pattern is found: “{shown(found)}”.", shown(found))
        tidy = Exact(ignore_case=self.ignore_case).tidy
        right = tidy(found) == tidy(reference)
        is_ = "is" if right else "is not"
        return Checked(right, f"The pattern finds “{shown(found)}”, which {is_} the reference.", shown(found))

    def _found(self, pattern: Any, answer: str) -> str | None:
        """What the pattern finds: of a reference the first match, of an option the last."""
        searching = {"timeout": self.seconds, "concurrent": True}  # other threads go on meanwhile
        if self.whole:
            found = pattern.fullmatch(answer, **searching)
        elif not self.pattern:
            found = pattern.search(answer, **searching)
        else:
            last = deque(pattern.finditer(answer, **searching), maxlen=1)
            found = last[0] if last else None
        if found is None:
            return None
        return found[1] or "" if self.pattern and pattern.groups else found[0]


@lru_cache(maxsize=1024)
def _compiled(pattern: str, ignore_case: bool) -> Any:
    """The pattern; ValueError in words where it is none."""
    import regex

    if len(pattern) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST:,} characters")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(str(error) or "it is nested too deeply") from None
