"""Declared against found: one comparison for all kinds of facts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from itertools import takewhile

from .facts import Fact, Facts

# Whoever changes these may let somebody see or do more, which the statement alone does not tell.
_UNTOLD = ("policy", "function", "owner", "rule", "inheritance", "setting", "trigger", "other object")
# A type, a newline, and one of a limited length that takes its values by itself.
_SHORTENED = re.compile(
    r".*\ncharacter(?: varying)?\(\d+\)(?! ?\[)"
    r"|(?:character|text)\b.*\[\].*\ncharacter(?: varying)?\(\d+\)\[\]"
    r"|bit\b[^\[]*\nbit(?: varying)?\(\d+\)(?!\[)"
)
_ADDS_ACCESS = ("grant", "default privilege", "setting", "rule", "inheritance", "other object", "owner")


@dataclass(frozen=True)
class Difference:
    """A fact that is declared and not so, or so and not declared, or not as declared.

    :param with_table: whether its table is missing as a whole, and created with most that belongs to it.
    :param reads_others: whether, on a missing table, it reads others that are missing too.
    :param replaced: whether it is dropped and made again, though it may not differ, since what it uses is.
    :param needs_columns: whether it is a function that uses columns which change or go.
    """

    declared: Fact | None
    found: Fact | None
    with_table: bool = False
    reads_others: bool = False
    replaced: bool = False
    needs_columns: bool = False

    @property
    def fact(self) -> Fact:
        """Whichever of the two there is, the declared one first."""
        fact = self.declared or self.found
        assert fact is not None
        return fact

    @property
    def drop(self) -> Sequence[str]:
        """What takes away what is in the place of the declared."""
        # With its table goes all that is on it, unless another one has to go before.
        goes_with_table = self.with_table and not self.reads_others
        return () if self.found is None or goes_with_table or self.is_altered else self.found.drop

    @property
    def make(self) -> Sequence[str]:
        """What brings the database to what is declared, after ``drop``."""
        if self.declared is None:
            return ()
        if self.found is not None and self.refuses_what_is_too_long:
            return [statement.partition(" USING ")[0] for statement in self.declared.create]
        return self.declared.alter if self.is_altered else self.declared.create

    @property
    def refuses_what_is_too_long(self) -> bool:
        """Whether a column gets a limited length, to which a cast by USING would cut what it has."""
        if self.fact.kind != "type" or self.declared is None or self.found is None:
            return False
        types = (fact.attributes["value"] for fact in (self.found, self.declared))
        return _SHORTENED.match("\n".join(types)) is not None

    @property
    def is_altered(self) -> bool:
        """Whether what is found becomes what is declared without being dropped."""
        declared, found = self.declared, self.found
        return not self.replaced and bool(declared and found and declared.can_alter(found))

    @property
    def reverse(self) -> "Difference":
        """The way back."""
        return replace(self, declared=self.found, found=self.declared)

    @property
    def title(self) -> str:
        """Which thing it is: its kind, its name, and where it is; an allow-list says it like this."""
        kind, on, name = self.fact.key
        where = "" if name == on or f"{on}." in name else f" on {on}"
        return f"{kind} {name}".strip() + where

    @property
    def widens_access(self) -> bool:
        """Whether what was found may let somebody see or do more than is declared."""
        found, declared, kind = self.found, self.declared, self.fact.kind
        if kind == "row security":
            return bool(found and declared and declared.attributes["enabled"] > found.attributes["enabled"])
        if found and declared:
            return kind in _UNTOLD or bool(kind == "grant" and found.attributes["grantable"])
        if kind == "policy":
            # Rows must pass every restrictive policy, and one of the others.
            return bool(declared) if self.fact.attributes["restrictive"] else bool(found)
        if kind == "function":
            return bool(found and found.attributes["security"] == "DEFINER")
        return bool(found) and kind in _ADDS_ACCESS

    @property
    def values(self) -> str:
        """What each attribute that differs is, and what it is declared to be."""
        assert self.declared is not None
        assert self.found is not None
        declared, found = self.declared.attributes, self.found.attributes
        return "; ".join(
            _words(name, declared[name], found[name]) for name in declared if declared[name] != found[name]
        )

    @property
    def words(self) -> str:
        """What is found and what is declared."""
        if self.found is None:
            words = "declared, not found"
        elif self.declared is None:
            words = "found, not declared"
        else:
            words = self.values
        return words + (" (may widen access)" if self.widens_access else "")

    def __str__(self) -> str:
        return f"{self.title}: {self.words}"

    @property
    def lines(self) -> Sequence[str]:
        """The same to be read on a terminal: what is long below, as far as it differs."""
        if self.declared is None or self.found is None:
            return [str(self)]
        below: list[str] = []
        words = []
        for name, declared in self.declared.attributes.items():
            found = self.found.attributes[name]
            if found == declared:
                continue
            if _is_long(found) or _is_long(declared):
                words.append(f"{name} differs")
                below += _compared(name, found, declared)
            else:
                words.append(_words(name, declared, found))
        widens = " (may widen access)" if self.widens_access else ""
        return [f"{self.title}: {'; '.join(words)}{widens}", *below]


def differences(declared: Facts, found: Facts) -> Iterator[Difference]:
    """Give what differs; found facts that are foreign and not declared do not."""
    for key in [*declared, *(key for key in found if key not in declared)]:
        want, have = declared.get(key), found.get(key)
        if want is None:
            assert have is not None
            if not have.foreign:
                yield Difference(None, have)
        elif have is None or have.attributes != want.attributes:
            yield Difference(want, have)


_LONG = 100
_AROUND = 20


def _is_long(value: object) -> bool:
    return len(str(value)) > _LONG or "\n" in str(value)


def _compared(name: str, found: object, declared: object) -> list[str]:
    """Give the lines that differ of two texts, or where there is but one line, what differs of it."""
    is_, declared_ = ("missing" if value is None else str(value) for value in (found, declared))
    if "\n" in is_ + declared_:
        lines = is_.splitlines(), declared_.splitlines()
        return list(unified_diff(*lines, f"{name} found", f"{name} declared", n=1, lineterm=""))
    if None not in (found, declared):
        is_, declared_ = _clipped(is_, declared_)
    return [f"{name} found:    {is_}", f"{name} declared: {declared_}"]


def _clipped(one: str, other: str) -> tuple[str, str]:
    """Leave out what two texts have in common at their beginning and at their end, but for a few words."""
    start = _common(one, other)
    end = _common(one[start:][::-1], other[start:][::-1])
    start = one.rfind(" ", 0, max(start - _AROUND, 0)) + 1
    rest = one[len(one) - end :].find(" ", _AROUND)
    end = end - rest if rest >= 0 else 0

    def part(text: str) -> str:
        return ("… " if start else "") + text[start : len(text) - end] + (" …" if end else "")

    return part(one), part(other)


def _common(one: str, other: str) -> int:
    """Give how many letters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _words(name: str, declared: object, found: object) -> str:
    if "\n" in f"{declared}{found}":
        return f"{name} differs"
    is_, declared_ = ("missing" if value is None else repr(value) for value in (found, declared))
    return f"{name} is {is_}, declared {declared_}"
