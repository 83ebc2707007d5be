"""Declared against found: one comparison for all kinds of facts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .facts import Fact, Facts


@dataclass(frozen=True)
class Difference:
    """A fact that is declared and not so, or so and not declared, or not as declared."""

    declared: Fact | None
    found: Fact | None

    @property
    def fact(self) -> Fact:
        """Whichever of the two there is, the declared one first."""
        fact = self.declared or self.found
        assert fact is not None
        return fact

    @property
    def statements(self) -> Sequence[str]:
        """What brings the database to what is declared."""
        declared, found = self.declared, self.found
        drop = found.drop if found and not (declared and declared.replaces) else ()
        return [*drop, *(declared.create if declared else ())]

    @property
    def reverse(self) -> "Difference":
        """The way back."""
        return Difference(self.found, self.declared)

    @property
    def widens_access(self) -> bool:
        """Whether what was found may let somebody see or do more than is declared."""
        found, declared = self.found, self.declared
        if self.fact.kind == "row security":
            return bool(found and declared and declared.attributes["enabled"] > found.attributes["enabled"])
        if self.fact.kind == "policy":
            restricts = self.fact.attributes["restrictive"]
            return found is None if restricts and declared is not None else found is not None
        return self.fact.kind == "grant" and found is not None

    def __str__(self) -> str:
        title = f"{self.fact.kind} {self.fact.name}".strip() + f" on {self.fact.on}"
        if self.found is None:
            words = f"{title}: declared, not found"
        elif self.declared is None:
            words = f"{title}: found, not declared"
        else:
            declared, found = self.declared.attributes, self.found.attributes
            words = f"{title}: " + "; ".join(
                _words(name, declared[name], found[name])
                for name in declared
                if declared[name] != found[name]
            )
        return words + (" (may widen access)" if self.widens_access else "")


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
    return f"{name} is {found!r}, declared {declared!r}"
