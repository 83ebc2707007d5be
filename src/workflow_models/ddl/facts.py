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
    rows = connection.execute(query, {"targets": json.dumps(each), **parameters}).all()
    return {fact.key: fact for on, *row in rows for fact in _each(on, [row])}


def of_functions(connection: Connection, oid: int, schema: str, names: Sequence[str] | None = None) -> Facts:
    """Read the facts of the functions in a schema.

    :param oid: the schema's, or that of the one in which declared functions were made.
    :param names: of those that are read; None for all.
    """
    read = {"oid": oid, "schema": schema, "names": None if names is None else list(names)}
    return _facts(schema, connection.execute(FUNCTIONS, read).all())


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


# Of the named ones, and of all others in some schemas.
_ENUMS = text("""
    SELECT given.schema, coalesce(given.name, t.typname::text), t.oid, pg_get_userbyid(t.typowner)::text,
        (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
    LEFT JOIN jsonb_to_recordset(CAST(:enums AS jsonb)) AS named (schema text, name text, called text)
        ON t.oid = to_regtype(named.called)
    CROSS JOIN LATERAL (SELECT CASE WHEN named.called IS NULL THEN n.nspname::text ELSE named.schema END, named.name)
        AS given (schema, name)
    WHERE t.typtype = 'e' AND (named.called IS NOT NULL OR n.nspname = ANY (CAST(:schemas AS text[])))
""")


def of_enums(
    connection: Connection, enums: Iterable[Enum], schemas: Sequence[str] = ()
) -> tuple[Facts, list[int]]:
    """Read what the values are of enum types, and who owns those that are named.

    :param schemas: those of which others are read too.
    :returns: also the types themselves.
    """
    named = {(enum.schema, str(enum.name)) for enum in enums}
    of = [{"schema": schema, "name": name, "called": quoted(schema, name)} for schema, name in named]
    read: Facts = {}
    oids = []
    for schema, name, oid, owner, values in connection.execute(
        _ENUMS, {"enums": json.dumps(of), "schemas": list(schemas)}
    ):
        oids.append(oid)
        fact = _enum(schema, name, values or [])
        read[fact.key] = fact
        if (schema, name) in named:
            to = f"ALTER TYPE {quoted(schema, name)} OWNER TO {quoted(owner)}"
            owned = Fact("owner", fact.on, name, {"value": owner}, (to,))
            read[owned.key] = owned
    return read, oids


def of_declared_enums(enums: Iterable[Enum]) -> Facts:
    """Give the facts of enum types as they are declared."""
    each = (_enum(enum.schema, str(enum.name), enum.enums) for enum in enums)
    return {fact.key: fact for fact in each}


def _enum(schema: str | None, name: str, values: Sequence[str]) -> Fact:
    called = quoted(schema, name)
    return Fact(
        "enum type",
        schema or name,
        name,
        {"values": list(values)},
        (f"CREATE TYPE {called} AS ENUM ({', '.join(map(literal, values))})",),
        # No value can be taken away: another way back than by hand there is not.
        tuple(
            f"ALTER TYPE {called} ADD VALUE IF NOT EXISTS {literal(value)}"
            + (f" AFTER {literal(values[place - 1])}" if place else "")
            for place, value in enumerate(values)
        ),
        (f"DROP TYPE {called}",),
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
    return _LIST.sub(lambda found: f"(ARRAY[{found[1]}]::character varying[])::text[]", statement)


def _canonical(value: str) -> str:
    """Give such a list as PostgreSQL prints it once it was printed and read, as by a dump."""
    return _LIST.sub(lambda found: "ARRAY[" + _ITEM.sub(r"(\g<0>)::text", found[1]) + "]", value)
