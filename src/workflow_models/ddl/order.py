"""In which order differences are settled: what uses others goes before them, and comes after them.

Nothing here knows of Alembic. Each direction of a revision is ordered by itself, from differences that
point that way.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .compare import Difference
from .dependencies import Dependency, Key
from .facts import Fact, Facts
from .item import literal, quoted

# What others need comes first; it is dropped the other way round. What is built outside of a transaction
# comes last, since all before it is committed then.
ORDER = (
    "schema",
    "enum type",
    "standalone sequence",
    "function",
    "owner",
    "relation kind",
    "persistence",
    "of type",
    "inheritance",
    "type",
    "generated column",
    "identity",
    "sequence",
    "identity sequence",
    "sequence persistence",
    "default",
    "storage",
    "compression",
    "statistics target",
    "column option",
    "storage parameter",
    "statistics",
    "rule",
    "trigger",
    "policy",
    "row security",
    "grant",
    "default privilege",
    "setting",
    "column comment",
    "table comment",
    "not null",
    "index",
    "primary key",
    "unique constraint",
    "exclusion constraint",
    "check constraint",
    "foreign key",
    "replica identity",
    "clustering",
    "other object",
)
# After columns and tables that used them are gone, and before others are made that may use them.
_BETWEEN_COLUMNS = ("schema", "enum type", "standalone sequence", "function", "type")

Step = tuple[Difference, str]


@dataclass(frozen=True)
class Plan:
    """The statements of one direction, each with the difference that it settles.

    :param before: those that come before tables and columns are dropped.
    :param between: those that come before tables and columns are made.
    :param after: those that come after it.
    """

    before: Sequence[Step]
    between: Sequence[Step]
    after: Sequence[Step]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    :param differences: what differs.
    :param declared: all that is declared.
    :param found: all that was found.
    :param dependencies: what uses what in the database; empty where nothing has to be dropped for a change.
    :param rewriting: the keys of the types of missing columns with which PostgreSQL rewrites the table.
    :param dropped: all that is on tables that are not declared and will be dropped.
    """

    differences: Sequence[Difference]
    declared: Facts = field(default_factory=dict)
    found: Facts = field(default_factory=dict)
    dependencies: Sequence[Dependency] = ()
    rewriting: Collection[Key] = ()
    dropped: Facts = field(default_factory=dict)


def needs_dependencies(differences: Iterable[Difference]) -> bool:
    """Tell whether a change takes away, or alters, what something else may use."""
    return any(_unsettled(difference) is not None for difference in differences)


def _unsettled(difference: Difference) -> Fact | None:
    """Give the fact that is not there for a while, or that PostgreSQL alters under nobody."""
    fact = difference.found or difference.fact
    if difference.with_table or not (difference.found or fact.kind == "generated column"):
        return None
    if difference.declared and difference.declared.name != fact.name:
        # A new name is no matter to what uses it.
        return None
    if (fact.kind == "type" and difference.declared is not None) or fact.kind == "generated column":
        return fact
    # Another one takes the place of an index or of its key, but not where somebody needs the first.
    if fact.kind in ("primary key", "unique constraint", "index"):
        return fact
    return fact if fact.kind in ("function", "exclusion constraint") and not difference.is_altered else None


def settled(comparison: Comparison) -> tuple[list[Difference], list[str]]:
    """Give what has to be done: also what is dropped and made again around a change, since it uses that.

    Where only the name of something differs, it is renamed.

    :returns: the changes, and in words what belongs to somebody else and stands in the way of one.
    """
    renamed = _renamed(comparison.differences)
    changes = {difference.fact.key: _with_more_values(difference) for difference in renamed}
    in_the_way: dict[str, None] = {}
    for change in list(changes.values()):
        kind, on, name = change.fact.key
        # PostgreSQL converts a default only where that needs no words.
        if kind == "default" and change.found is not None and ("type", on, name) in changes:
            changes[change.fact.key] = replace(change, replaced=True)
        if kind == "index" and change.is_altered and _may_not_stay(change, changes.values()):
            changes[change.fact.key] = replace(change, replaced=True)
    for dependency in comparison.dependencies:
        key, column = dependency.key, dependency.used
        goes = column not in comparison.declared
        if key is None or column[0] != "type" or not (goes or column in changes):
            continue
        if key[0] == "foreign key" and goes:
            # Also one that is nobody's concern otherwise.
            changes.setdefault(key, Difference(comparison.declared.get(key), comparison.found[key]))
        elif key[0] == "function":
            user = changes.get(key) or Difference(comparison.declared.get(key), comparison.found[key])
            changes[key] = replace(user, replaced=True, needs_columns=True)
    open_ = [fact for change in changes.values() if (fact := _unsettled(change))]
    for fact in open_:
        for dependency in comparison.dependencies:
            if not dependency.is_broken_by(fact) or dependency.key == fact.key:
                continue
            key = dependency.key
            known = changes.get(key) if key else None
            if known is None:
                declared = comparison.declared.get(key) if key else None
                if key is not None and declared is None and _goes_with_its_column(key, comparison.declared):
                    continue
                if key is not None and key[0] == "foreign key" and fact.kind == "type" and declared is None:
                    continue
                if key is None or declared is None:
                    in_the_way[f"{dependency.user} uses {' '.join((fact.kind, fact.name))}"] = None
                    continue
                known = Difference(declared, comparison.found[key])
            if known.found is None or known.replaced:
                continue
            assert key is not None
            used = changes.get(fact.key)
            needs_columns = key[0] == "function" and used is not None and used.needs_columns
            changes[key] = replace(known, replaced=True, needs_columns=needs_columns)
            open_ += [known.found]
    lost = [*_lost(changes, comparison), *_lost_with_indexes(changes, comparison)]
    return [*changes.values(), *lost, *_lifted(changes, comparison)], list(in_the_way)


def _with_more_values(change: Difference) -> Difference:
    """Let an enum type that is there get the values that it lacks; it keeps those that it has."""
    declared, found = change.declared, change.found
    if change.fact.kind != "enum type" or declared is None or found is None:
        return change
    values = zip(declared.attributes["values"], declared.alter, strict=True)
    lacking = tuple(adding for value, adding in values if value not in found.attributes["values"])
    return replace(
        change,
        declared=replace(declared, create=lacking, alter=(), drop=()),
        found=replace(found, create=(), alter=(), drop=()),
    )


def _may_not_stay(index: Difference, changes: Iterable[Difference]) -> bool:
    """Tell whether one of two indexes may use what is not there, or not the same, while the other is."""
    return any(
        (change.fact.kind == "function" and not change.is_altered)
        or (change.fact.kind == "type" and change.fact.on == index.fact.on)
        for change in changes
    )


def _goes_with_its_column(key: Key, facts: Facts) -> bool:
    kind, on, name = key
    return kind in ("default", "generated column") and ("type", on, name) not in facts


def _lost(changes: dict[Key, Difference], comparison: Comparison) -> Iterator[Difference]:
    """Give what goes with a sequence, or with a column, that is made anew."""
    for change in changes.values():
        fact = change.fact
        if change.with_table or fact.kind not in ("sequence", "identity sequence", "generated column"):
            continue
        if change.is_altered or (fact.kind != "generated column" and change.declared is None):
            continue
        column = str(fact.column)
        for key, declared in comparison.declared.items():
            found = comparison.found.get(key)
            if found is None or key in changes or key[1] != fact.on:
                continue
            of_column = (declared.column == column and declared.kind not in ("type", "column comment")) or (
                declared.kind == "grant" and declared.name.endswith(f"({quoted(column)})")
            )
            of_sequence = declared.name.endswith(f" on the sequence of {quoted(column)}")
            if of_column if fact.kind == "generated column" else of_sequence:
                yield Difference(replace(declared, drop=()), replace(found, drop=()), replaced=True)


def _lost_with_indexes(changes: dict[Key, Difference], comparison: Comparison) -> Iterator[Difference]:
    """Give what is set on an index that another one takes the place of."""
    for change in changes.values():
        index, again = change.found, change.declared
        if index is None or index.kind not in _INDEXED or (again and again.name != index.name):
            continue
        for kind, value in (
            ("replica identity", f"USING INDEX {quoted(index.name)}"),
            ("clustering", quoted(index.name)),
        ):
            found = comparison.found.get((kind, index.on, ""))
            if found is not None and found.attributes["value"] == value and found.key not in changes:
                yield Difference(found if again else None, found, replaced=True)


def _lifted(changes: dict[Key, Difference], comparison: Comparison) -> Iterator[Difference]:
    """Give the row security that stays forced on tables whose foreign keys are validated: not meanwhile."""
    keys = [change.fact for change in changes.values() if change.fact.kind == "foreign key"]
    tables = [
        table for key in keys for table in (key.on, _REFERENCED.findall(key.attributes["definition"])[0])
    ]
    for table in dict.fromkeys(tables):
        key = "row security", table, ""
        declared, found = comparison.declared.get(key), comparison.found.get(key)
        if declared and found and declared.attributes["forced"] and found.attributes["forced"]:
            drop = (f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",)
            yield Difference(replace(declared, drop=drop), replace(found, drop=drop), replaced=True)


_REFERENCED = re.compile(r' REFERENCES ((?:[\w$.]|"(?:[^"]|"")*")+)\(')
_INDEXED = ("index", "primary key", "unique constraint", "exclusion constraint")


def plan(changes: Sequence[Difference]) -> Plan:
    """Give the statements of one direction in an order in which they can run.

    Indexes are dropped at the beginning and built at the end, outside of the transaction; all that decides
    who may see or do what changes within one.
    """
    ordered = sorted(changes, key=_place)
    backwards = list(reversed(ordered))
    late = [change for change in backwards if _is_dropped_late(change, changes)]
    drops = [change for change in backwards if change not in late]
    # What is outside of a transaction comes first: no new value can be used before it is committed.
    values = [change for change in ordered if adds_values(change)]
    indexes = [change for change in drops if change.fact.kind == "index"]
    between = [
        change
        for change in ordered
        if change.fact.kind in _BETWEEN_COLUMNS and not change.needs_columns and change not in values
    ]
    rest = [change for change in ordered if change not in (*between, *values)]
    keys = any(change.fact.kind in ("index", "primary key", "unique constraint") for change in rest)
    # Foreign keys are validated as the owner, who under FORCE would not see the rows.
    validates = any(change.fact.kind == "foreign key" and change.make for change in rest)
    forcing = [change for change in rest if validates and _forces(change)]

    def inside(change: Difference) -> int:
        return 1 if change in forcing else _inside(change, keys)

    return Plan(
        before=[
            *((each, statement) for each in values for statement in each.make),
            *((each, statement) for each in indexes for statement in each.drop),
            *(
                (each, statement)
                for each in drops
                if each not in indexes and each not in between
                for statement in each.drop
            ),
        ],
        between=[
            *((each, statement) for each in drops if each in between for statement in each.drop),
            *((each, statement) for each in between for statement in each.make),
        ],
        after=[
            *((each, statement) for each in rest for statement in each.make[: inside(each)]),
            *((each, statement) for each in late for statement in each.drop),
            *(
                (each, statement)
                for each in rest
                if each not in forcing
                for statement in each.make[inside(each) :]
            ),
            *((each, statement) for each in forcing for statement in each.make[inside(each) :]),
        ],
    )


def adds_values(change: Difference) -> bool:
    """Tell whether an enum type that is there gets more values."""
    return change.fact.kind == "enum type" and change.declared is not None and change.found is not None


def _place(change: Difference) -> int:
    """Give its place in ORDER; a column may be NULL only once no primary key has it."""
    declared = change.declared
    allows_null = change.fact.kind == "not null" and declared and declared.attributes["value"] == "false"
    return ORDER.index("primary key") + 1 if allows_null else ORDER.index(change.fact.kind)


def _forces(change: Difference) -> bool:
    """Tell whether row security comes to hold for the owner too, by the second of its statements."""
    declared, found = change.declared, change.found
    if change.fact.kind != "row security" or declared is None or not declared.attributes["forced"]:
        return False
    return found is None or not found.attributes["forced"] or change.replaced


def _inside(change: Difference, keys: bool) -> int:
    """Give how many of its statements need nothing that is built outside of the transaction.

    :param keys: whether keys are built there.
    """
    if change.with_table or ORDER.index(change.fact.kind) < ORDER.index("not null"):
        return len(change.make)
    # Added NOT VALID, so that what is written from now on is right.
    return int(change.fact.kind == "check constraint" or (change.fact.kind == "foreign key" and not keys))


def _is_dropped_late(change: Difference, changes: Sequence[Difference]) -> bool:
    """Tell whether what is dropped may be in use until all the others have changed."""
    fact = change.fact
    if change.declared is not None:
        return False
    if fact.kind == "function":
        # Calls could not be told apart while both it and another one of its name are there.
        name = fact.name.partition("(")[0]
        return not any(
            each.found is None and each.fact.kind == "function" and each.fact.name.partition("(")[0] == name
            for each in changes
        )
    if fact.kind == "sequence":
        # Unless an identity of the column gets its name.
        return not any(
            each.found is None and each.fact.key == ("identity", fact.on, fact.column) for each in changes
        )
    return fact.kind in ("schema", "enum type", "standalone sequence")


_RENAMED_BY = {
    "policy": "ALTER POLICY {} ON {table} RENAME TO {}",
    "trigger": "ALTER TRIGGER {} ON {table} RENAME TO {}",
    "index": "ALTER INDEX IF EXISTS {schema}{} RENAME TO {}",
    "sequence": "ALTER SEQUENCE IF EXISTS {} RENAME TO {}",
    "standalone sequence": "ALTER SEQUENCE IF EXISTS {} RENAME TO {}",
    "primary key": "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
    "unique constraint": "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
    "exclusion constraint": "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
    "check constraint": "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
    "foreign key": "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
}


def _renamed(differences: Sequence[Difference]) -> Iterator[Difference]:
    """Make one change of two where something is there under another name than the declared one."""
    left = list(differences)
    for missing in [difference for difference in differences if difference.found is None]:
        fact = missing.fact
        if fact.kind not in _RENAMED_BY or missing.with_table:
            continue
        for extra in left:
            other = extra.found
            if extra.declared is None and other is not None and _differ_in_name_only(fact, other):
                left.remove(extra)
                left[left.index(missing)] = Difference(
                    replace(fact, alter=(_rename(other, fact),)),
                    replace(other, alter=(_rename(fact, other),)),
                )
                break
    return iter(left)


def _differ_in_name_only(one: Fact, other: Fact) -> bool:
    # What stands in no schema by its name is on itself.
    on, other_on = (None if fact.on == fact.name else fact.on for fact in (one, other))
    return (one.kind, on) == (other.kind, other_on) and _nameless(one) == _nameless(other)


def _nameless(fact: Fact) -> dict[str, object]:
    name = quoted(fact.name)
    return {
        key: value.replace(f" {name} ", " ", 1)
        if isinstance(value, str) and fact.kind in ("index", "trigger")
        else value
        for key, value in fact.attributes.items()
    }


def _rename(old: Fact, new: Fact) -> str:
    if new.kind == "sequence":
        # Its name is as a statement says it, schema and all.
        return _RENAMED_BY[new.kind].format(old.name, new.name.rpartition(".")[2])
    if new.kind == "standalone sequence":
        return _RENAMED_BY[new.kind].format(old.drop[0].removeprefix("DROP SEQUENCE "), quoted(new.name))
    schema, dot, _ = new.on.rpartition(".")
    statement = _RENAMED_BY[new.kind].format(
        quoted(old.name), quoted(new.name), table=new.on, schema=schema + dot
    )
    if "RENAME CONSTRAINT" not in statement:
        return statement
    return (
        "DO $rename$ BEGIN IF EXISTS (SELECT FROM pg_constraint "
        f"WHERE conrelid = {literal(new.on)}::regclass AND conname = {literal(old.name)}) "
        f"THEN {statement}; END IF; END $rename$"
    )
