"""What is so in a database, as small facts.

A fact knows how PostgreSQL prints it, and the statements that make it and that take it away, so that
comparing, writing and undoing need no code for each kind. The kinds that SQLAlchemy declares itself
(columns, constraints, indexes, defaults, comments) are read the same way.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Enum, TextClause, text

from .item import literal, only_what_is_granted, quoted
from .relation import GRANTS, RELATIONS, SEQUENCE
from .schema import FUNCTIONS, SCHEMA, SETTINGS

# What no statement alters; for the other kinds that can be altered, everything can.
_FIXED = {"function": ("kind", "arguments", "returns")}


@dataclass(frozen=True)
class Fact:
    """One thing that is so.

    :param kind: as ``policy``.
    :param on: the table or schema that it belongs to, quoted where needed.
    :param name: unique for its kind there.
    :param attributes: what is compared.
    :param create: statements that make it so where it is not.
    :param alter: statements that make it so where something of that name is.
    :param drop: statements that end it; none where ``create`` states one of several possible values.
    :param foreign: whether it is passed over where nothing of that name is declared.
    """

    kind: str
    on: str
    name: str
    attributes: Mapping[str, Any]
    create: tuple[str, ...]
    alter: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    foreign: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What two facts about the same thing share."""
        return self.kind, self.on, self.name

    @property
    def column(self) -> str | None:
        """The column that it is about, if it comes and goes with it."""
        if self.kind in COLUMN_KINDS:
            return self.name
        if self.kind == "column option":
            return self.name.partition(" of ")[2]
        return self.attributes.get("column") if "sequence" in self.kind else None

    def can_alter(self, other: "Fact") -> bool:
        """Tell whether it can be put in the place of another one of its key without dropping that."""
        fixed = _FIXED.get(self.kind, ())
        return bool(self.alter) and all(self.attributes[name] == other.attributes[name] for name in fixed)


Facts = dict[tuple[str, str, str], Fact]

COLUMN_KINDS = (
    "type",
    "not null",
    "default",
    "storage",
    "compression",
    "statistics target",
    "column comment",
    "identity",
    "generated column",
)


def reworded(read: Facts, change: Callable[[str], str]) -> Facts:
    """Give facts in which all names are changed."""
    changed = (
        replace(
            fact,
            name=change(fact.name),
            attributes={key: _each_text(value, change) for key, value in fact.attributes.items()},
            create=tuple(map(change, fact.create)),
            alter=tuple(map(change, fact.alter)),
            drop=tuple(map(change, fact.drop)),
        )
        for fact in read.values()
    )
    return {fact.key: fact for fact in changed}


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Target:
    """A table, or a clone of it, that is read.

    :param relation: the table's name, as the statements shall say it.
    :param schema: the table's with its dot, where PostgreSQL prints it.
    """

    oid: int
    relation: str
    schema: str = ""


def of_relations(
    connection: Connection, targets: Iterable[Target], schemas: Sequence[str], names: Mapping[str, str]
) -> Facts:
    """Read the facts of tables, or of clones of them.

    :param schemas: those whose functions are declared; triggers that call others are foreign.
    :param names: as what PostgreSQL prints the tables that have clones.
    """
    return _of_targets(
        connection, RELATIONS, targets, {"schemas": list(schemas), "names": json.dumps(dict(names))}
    )


_REWRITING = text(r"""
    SELECT target.relation, a.attname::text
    FROM jsonb_to_recordset(CAST(:targets AS jsonb)) AS target (oid oid, relation text)
    JOIN pg_attribute AS a ON a.attrelid = target.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attidentity <> '' OR a.attgenerated = 's' OR a.attgenerated = '' AND EXISTS (
        SELECT FROM regexp_matches(d.adbin::text, 'funcid (\d+)', 'g') AS called (id)
        JOIN pg_proc AS p ON p.oid = called.id[1]::oid WHERE p.provolatile = 'v')
""")


def rewriting(connection: Connection, targets: Iterable[Target]) -> set[tuple[str, str, str]]:
    """Give the columns that each row needs a value of its own for, so that adding one rewrites the table.

    :returns: the keys of their types.
    """
    of = json.dumps([vars(target) for target in targets])
    return {("type", on, name) for on, name in connection.execute(_REWRITING, {"targets": of})}


def of_privileges(connection: Connection, targets: Iterable[Target]) -> Facts:
    """Read the privileges that others have on tables that are not compared otherwise."""
    return _of_targets(connection, GRANTS, targets, {})


def _of_targets(
    connection: Connection, query: TextClause, targets: Iterable[Target], parameters: Mapping[str, Any]
) -> Facts:
    each = [vars(target) for target in targets]
    if not each:
        # To plan it takes longer than to read a table.
        return {}
    rows = connection.execute(query, {"targets": json.dumps(each), **parameters})
    return {fact.key: fact for on, *row in rows for fact in _each(on, [row])}


def of_functions(connection: Connection, oid: int, schema: str, names: Sequence[str] | None = None) -> Facts:
    """Read the facts of the functions in a schema.

    :param oid: the schema's, or that of the one in which declared functions were made.
    :param names: of those that are read; None for all.
    """
    read = {"oid": oid, "schema": schema, "names": None if names is None else list(names)}
    return _facts(schema, connection.execute(FUNCTIONS, read))


def of_schema(
    connection: Connection, schema: str, known: Sequence[int], known_types: Sequence[int] = ()
) -> Facts:
    """Read the facts of a schema itself, and of what is in it besides functions.

    :param known: tables and sequences in it that are accounted for elsewhere.
    :param known_types: types that are.
    """
    parameters = {"schema": schema, "known": list(known), "known_types": list(known_types)}
    return _facts(schema, connection.execute(SCHEMA, parameters))


def of_settings(connection: Connection, bodies: Iterable[str]) -> Facts:
    """Read what is set for the database or for roles, of the settings that functions read.

    :param bodies: of the functions.
    """
    rows = connection.execute(SETTINGS, {"bodies": "\n".join(bodies)})
    return {fact.key: fact for *row, on in rows for fact in _each(on, [row])}


def of_sequences(connection: Connection, sequences: Iterable[tuple[str | None, str, str]]) -> Facts:
    """Read sequences that no table owns.

    :param sequences: the schema and the name of each, and the name of what is read in its place.
    """
    read = (
        (schema, name, row)
        for schema, name, relation in sequences
        for row in connection.execute(SEQUENCE, {"relation": relation, "name": quoted(schema, name)})
    )
    made = (
        (fact, quoted(schema, name))
        for schema, name, row in read
        for fact in _each(schema or name, [("standalone sequence", name, *row)])
    )
    return {fact.key: replace(fact, create=(*fact.create, only_what_is_granted(name))) for fact, name in made}


_ENUM_VALUES = text(
    "SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = to_regtype(:name)::oid"
)


def of_enums(connection: Connection, enums: Iterable[Enum]) -> Facts:
    """Read what the values are of the enum types that columns use."""
    read = (
        (enum, connection.scalar(_ENUM_VALUES, {"name": quoted(enum.schema, enum.name)})) for enum in enums
    )
    return {fact.key: fact for enum, values in read if values for fact in [_enum(enum, values)]}


def of_declared_enums(enums: Iterable[Enum]) -> Facts:
    """Give the facts of enum types as they are declared."""
    return {fact.key: fact for enum in enums for fact in [_enum(enum, enum.enums)]}


def _enum(enum: Enum, values: Sequence[str]) -> Fact:
    name = quoted(enum.schema, enum.name)
    return Fact(
        "enum type",
        enum.schema or str(enum.name),
        str(enum.name),
        {"values": list(values)},
        (f"CREATE TYPE {name} AS ENUM ({', '.join(map(literal, values))})",),
        # No value can be taken away: another way back than by hand there is not.
        tuple(
            f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {literal(value)}"
            + (f" AFTER {literal(values[place - 1])}" if place else "")
            for place, value in enumerate(values)
        ),
        (f"DROP TYPE {name}",),
    )


def _facts(on: str, rows: Iterable[Any]) -> Facts:
    return {fact.key: fact for fact in _each(on, rows)}


def _each(on: str, rows: Iterable[Any]) -> Iterator[Fact]:
    for kind, name, attributes, create, alter, drop, foreign in rows:
        yield Fact(
            kind,
            on,
            name,
            {
                key: _canonical(value) if isinstance(value, str) else value
                for key, value in attributes.items()
            },
            tuple(map(_exact, create)),
            tuple(map(_exact, alter)),
            tuple(drop),
            foreign,
        )


# A list of texts for a column of limited length, as PostgreSQL prints it when it is written for the first time.
_LIST = re.compile(r"\(ARRAY\[((?:'(?:[^']|'')*'::character varying(?:, )?)+)\]\)::text\[\]")
_ITEM = re.compile(r"'(?:[^']|'')*'::character varying")


def _exact(statement: str) -> str:
    """Write such a list so that PostgreSQL prints the same again."""
    return _LIST.sub(r"(ARRAY[\1]::character varying[])::text[]", statement)


def _canonical(value: str) -> str:
    """Give such a list as PostgreSQL prints it once it was printed and read, as by a dump."""
    return _LIST.sub(lambda found: "ARRAY[" + _ITEM.sub(r"(\g<0>)::text", found[1]) + "]", value)
