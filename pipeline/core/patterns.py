"""Regular expressions that a hostile name cannot keep busy: in how many ways one may try to match is known beforehand.

Python's `re` goes back and tries again, and for an expression like `(a+)+b` in 2^n ways (Davis et al., "The Impact of
Regular Expression Denial of Service", ESEC/FSE 2018). What is taken here is what can be counted: characters, classes,
plain groups, alternatives, and repetitions of what has one length.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_WAYS = 2**17  # two repetitions that nothing ends, and two alternatives
GROUP = re.compile(r"\((?!\?)|\(\?:|\(\?P<\w+>")
CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
ESCAPE = re.compile(r"\\(?:[wdsWDS]|[^\w])", re.DOTALL)  # no character by its number, no reference to a group
AGAIN = re.compile(r"(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d*)\})")


class _Part(NamedTuple):
    ways: int
    varies: bool  # in length


def compiled(pattern: str, longest: int) -> re.Pattern[str]:
    """For whole texts of up to `longest` characters; ValueError where one may take too many ways, or nobody can say."""
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r:.80} is no regular expression: {error}") from None
    ways = _Reading(pattern, longest).alternatives().ways
    if ways > MOST_WAYS:
        raise ValueError(
            f"{pattern!r:.80} has too many ways to match one name; where a character ends a part, exclude it from the "
            "part: [^/]+/ in place of .+/"
        )
    return expression


class _Reading:
    """One pass over an expression that `re` takes."""

    def __init__(self, pattern: str, longest: int) -> None:
        self._pattern, self._longest, self._at = pattern, longest, 0

    def alternatives(self) -> _Part:
        """Up to the end of the group, or of all of it."""
        begins, branches = [self._at], [self._branch()]
        while self._pattern.startswith("|", self._at):
            self._at += 1
            begins.append(self._at)
            branches.append(self._branch())
        if len(branches) == 1:
            return branches[0]
        first = [self._first(at) for at in begins]
        apart = "" not in first and len(set(first)) == len(first)  # then no more than one of them can match
        ways = [branch.ways for branch in branches]
        return _Part(max(ways) if apart else sum(ways), varies=True)

    def _first(self, at: int) -> str:
        """The character that an alternative begins with; "" where that is not one alone."""
        character = self._pattern[at : at + 1]
        return character if character.isalnum() and not AGAIN.match(self._pattern, at + 1) else ""

    def _branch(self) -> _Part:
        ways, varies = 1, False
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            part = self._repeated()
            ways, varies = ways * part.ways, varies or part.varies
        return _Part(ways, varies)

    def _repeated(self) -> _Part:
        """A character, a class or a group, and how often it may come."""
        begin = self._at
        part, one = self._once(), self._pattern[begin : self._at]
        again = AGAIN.match(self._pattern, self._at)
        if again is None:
            return part
        self._at = again.end()
        if self._pattern[self._at : self._at + 1] in ("?", "+"):  # lazy, possessive
            self._at += 1
        least, most = _times(again[0], self._longest)
        if most > 1 and (part.ways > 1 or part.varies):
            raise ValueError(
                f"{self._pattern!r:.80} repeats {one!r:.40}, which matches in more ways than one: repeat "
                "characters and classes only"
            )
        if least == most:
            return part
        if most == 1:
            return _Part(1 + part.ways, varies=True)
        ends = not one.startswith("(") and self._is_ended_by_what_follows(one)
        return _Part(1 if ends else most - least + 1, varies=True)

    def _once(self) -> _Part:
        pattern, at = self._pattern, self._at
        if pattern[at] == "(":
            group = GROUP.match(pattern, at)
            if group is None:
                raise ValueError(f"{pattern!r:.80} has {pattern[at : at + 3]!r}, and may have plain groups only")
            self._at = group.end()
            inside = self.alternatives()
            self._at += 1
            return inside
        if pattern[at] in "[\\":
            found = (CLASS if pattern[at] == "[" else ESCAPE).match(pattern, at)
            if found is None:
                raise ValueError(f"{pattern!r:.80} has {pattern[at : at + 2]!r}: write the character itself")
            self._at = found.end()
        else:
            self._at += 1
        return _Part(1, varies=False)

    def _is_ended_by_what_follows(self, one: str) -> bool:
        """Whether a character has to come there that is none of `one`: then it ends in one place only."""
        at = self._at
        while self._pattern.startswith(")", at):
            at += 1
        after = ESCAPE.match(self._pattern, at)
        text = after[0] if after else self._pattern[at : at + 1]
        if not text or text in "|([.^$*+?{" or text[1:] in tuple("wdsWDS"):
            return False
        again = AGAIN.match(self._pattern, at + len(text))
        if again is not None and _times(again[0], self._longest)[0] == 0:
            return False
        return re.fullmatch(one, text[-1]) is None


def _times(again: str, longest: int) -> tuple[int, int]:
    """Least and most, where nothing is longer than `longest`."""
    if again in "*+?":
        return {"*": (0, longest), "+": (1, longest), "?": (0, 1)}[again]
    least, comma, most = again[1:-1].partition(",")
    few = min(int(least or 0), longest)
    return few, min(int(most), longest) if most else longest if comma else few
