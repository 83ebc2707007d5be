"""Declared against found: one comparison for all kinds of facts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .facts import Fact, Facts

# Whoever changes these may let somebody see or do more, which the statement alone does not tell.
_UNTOLD = ("policy", "function", "owner", "rule", "inheritance", "setting", "trigger", "other object")
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
        return self.declared.alter if self.is_altered else self.declared.create

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


def _words(name: str, declared: object, found: object) -> str:
    if "\n" in f"{declared}{found}":
        return f"{name} differs"
    is_, declared_ = ("missing" if value is None else repr(value) for value in (found, declared))
    return f"{name} is {is_}, declared {declared_}"
