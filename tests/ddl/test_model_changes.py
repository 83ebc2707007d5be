"""Whatever somebody edits in the models, the revision that is generated goes up, down and up again."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator, UserDefinedType

from tests.databases import Database
from tests.ddl.proof import Proof
from workflow_models.ddl import (
    ColumnOptions,
    Function,
    Grant,
    GrantOn,
    Policy,
    RowSecurity,
    Schema,
    Statistics,
    StorageParameters,
    Trigger,
)
from workflow_models.ddl.item import quoted

ROWS = "INSERT INTO tickets (title) SELECT 'ticket ' || n FROM generate_series(1, 3) AS n"


def desk(
    *items: SchemaItem, id: Column[int] | None = None, more: Callable[[MetaData], object] | None = None
) -> MetaData:
    """A table with these items; ``more`` declares what belongs to the MetaData."""
    metadata = MetaData()
    Schema("desk", metadata)
    if more:
        more(metadata)
    columns = {column.name: column for column in items if isinstance(column, Column)}
    columns.setdefault("title", Column("title", Text))
    Table(
        "tickets",
        metadata,
        id if id is not None else Column("id", Integer, primary_key=True),
        *columns.values(),
        RowSecurity(),
        *(item for item in items if not isinstance(item, Column)),
    )
    return metadata


def keyed(*columns: str) -> MetaData:
    """A table with this primary key, whose columns else may be NULL."""
    return desk(PrimaryKeyConstraint(*columns, name="tickets_pkey"), id=Column("id", Integer, Identity()))


def odd_names() -> MetaData:
    """Names with a sign that means something to drivers."""
    metadata = MetaData()
    Schema("100%", metadata)
    Function("f %s", metadata, schema="100%", language="sql", returns="integer", body="SELECT 5 % 2")
    number = Sequence("number %d", metadata=metadata, schema="100%")
    Table(
        "t %",
        metadata,
        Column("id %d", Integer, primary_key=True),
        Column("up %s", ForeignKey("100%.t %.id %d")),
        Column("number", Integer, server_default=number.next_value()),
        RowSecurity(forced=True),
        Policy("Odd %", "SELECT", using='"id %d" % 2 = "100%"."f %s"()'),
        schema="100%",
    )
    return metadata


def in_schema(*items: SchemaItem) -> MetaData:
    """A table with these items in a schema that is not in the path."""
    metadata = MetaData()
    Schema("desk", metadata)
    Table("tickets", metadata, Column("id", Integer, primary_key=True), *items, schema="desk")
    return metadata


def function(
    name: str = "level",
    *,
    arguments: str = "",
    returns: str = "integer",
    body: str = "SELECT 3",
    volatility: str = "IMMUTABLE",
    language: str = "sql",
) -> Callable[[MetaData], object]:
    return lambda metadata: Function(
        name,
        metadata,
        schema="desk",
        arguments=arguments,
        returns=returns,
        body=body,
        language=language,
        volatility=volatility,
    )


def functions(*each: Callable[[MetaData], object]) -> Callable[[MetaData], object]:
    return lambda metadata: [declare(metadata) for declare in each]


def children(metadata: MetaData) -> object:
    return Table(
        "notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("ticket_id", Integer, ForeignKey("tickets.id")),
        Column("email", Text),
    )


def marks(metadata: MetaData) -> object:
    return Table(
        "marks",
        metadata,
        Column("id", Integer, primary_key=True),
        RowSecurity(),
        Policy("Mine", "SELECT", using="id = desk.level()"),
    )


def odd_table(metadata: MetaData) -> object:
    """A table with things on it that SQLAlchemy does not reflect."""
    return Table(
        "Odd ones",
        metadata,
        Column("twice", Integer, Computed("id * 2", persisted=True)),
        Column("id", BigInteger, primary_key=True, comment=":a %s"),
        Column("number", Integer, Identity(always=True, start=7)),
        Column("place", Point, nullable=False, server_default=text("'(1,2)'")),
        Column("state", String(20, collation="C")),
        Column("note_id", Integer, ForeignKey("notes.id", ondelete="CASCADE")),
        CheckConstraint(r"state LIKE '%\:new'", name="new"),
        UniqueConstraint("number", name="once"),
        Index("by_state", "state", postgresql_where=text("id > 0")),
        Index("by_place", "place", postgresql_using="gist"),
        RowSecurity(forced=True),
        Policy("Small", "SELECT", using="id < 10"),
        Trigger("touch", "BEFORE", "UPDATE", "desk.touch()", enabled="ALWAYS"),
        Grant("SELECT", to="anon", columns=("state",)),
        Grant("USAGE", to="anon", sequence_of="id"),
        Statistics("odd_state", "id", "state"),
        StorageParameters(fillfactor=70),
        ColumnOptions("state", n_distinct=3),
        comment="odd",
    )


def moods(metadata: MetaData) -> object:
    return Table(
        "moods",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("mood", Enum("good", "bad", name="mood")),
    )


def states(
    *, schema: str | None = "desk", values: tuple[str, ...] = ("open", "paid"), name: str = "state"
) -> tuple[SchemaItem, ...]:
    """All that may name an enum type, which need not be where its table is."""
    called = quoted(schema, name)
    return (
        Column("state", Enum(*values, name=name, schema=schema), server_default="open"),
        Column("states", ARRAY(Enum(*values, name=name, schema=schema))),
        CheckConstraint(f"state <> 'paid'::{called}", name="unpaid"),
        Index("paid", "id", postgresql_where=text(f"state = CAST('paid' AS {called})")),
    )


class Decorated(TypeDecorator[str]):
    """An enum type of a schema that is not in the path, with something around it."""

    impl = Enum
    cache_ok = True

    def __init__(self) -> None:
        super().__init__("open", "paid", name="state", schema="desk")


def enums_of_one_name() -> tuple[SchemaItem, ...]:
    return (
        Column("state", Decorated, server_default="open"),
        Column("Other state", Enum("on", "off", name="state"), server_default="on"),
        Column("all", ARRAY(Decorated)),
        Column("others", ARRAY(Enum("on", "off", name="state"))),
        Column("varying", Text().with_variant(Decorated(), "postgresql")),
    )


def numbered(
    increment: int = 2,
    *,
    name: str = "Odd numbers",
    schema: str | None = None,
    used: bool = True,
    to: str | None = None,
) -> MetaData:
    """A sequence that no table owns, of which a default takes values, or none does."""
    metadata = desk()
    sequence = Sequence(name, metadata=metadata, schema=schema, increment=increment)
    if to:
        GrantOn("USAGE", sequence.name, metadata, to=to, schema=schema)
    if used:
        metadata.tables["tickets"].append_column(
            Column("number", Integer, server_default=sequence.next_value())
        )
    return metadata


def readers(schema: str | None = None) -> Callable[[MetaData], object]:
    """Tables in which a policy reads one that comes later."""
    return lambda metadata: [
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            RowSecurity(),
            Policy("Read", "SELECT", using=f"id IN (SELECT id FROM {quoted(schema, other)})"),
            schema=schema,
        )
        for name, other in (("a", "b"), ("b", "a"))
    ]


def reading(
    sql: str,
    *columns: Column[Any],
    schema: str | None = None,
    more: Callable[[MetaData], object] | None = None,
) -> MetaData:
    """A policy that reads another table with these columns."""
    metadata = desk(Policy("Read", "SELECT", using=f"EXISTS ({sql})"), more=more)
    Table("others", metadata, Column("id", Integer, primary_key=True), *columns, RowSecurity(), schema=schema)
    return metadata


def hidden(schema: str) -> Callable[[MetaData], object]:
    """A table of a schema that is not in the path, whose policy reads one that is called the same."""
    return lambda metadata: Table(
        "tickets",
        metadata,
        Column("id", Integer, primary_key=True),
        RowSecurity(),
        Policy("Read", "SELECT", using="id IN (SELECT id FROM tickets)"),
        schema=schema,
    )


def forced(*keys: SchemaItem, forced: bool) -> MetaData:
    """A table that others refer to, whose rows its owner sees, or does not."""
    metadata = MetaData()
    Table("tickets", metadata, Column("id", Integer, primary_key=True), RowSecurity(forced=forced))
    Table("notes", metadata, Column("ticket_id", Integer), *keys)
    return metadata


def to_tickets(ondelete: str | None = None) -> SchemaItem:
    return ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="of_ticket", ondelete=ondelete)


class Point(UserDefinedType[str]):
    """A type of which SQLAlchemy knows nothing."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "point"


TOUCH = function(
    "touch", returns="trigger", body="BEGIN RETURN NEW; END", language="plpgsql", volatility="VOLATILE"
)


def used() -> tuple[SchemaItem, ...]:
    """Everything that may use the column ``level``."""
    return (
        Policy("Urgent", "SELECT", using="level > 1"),
        Trigger("touch", "AFTER", "UPDATE", "desk.touch()", columns=("level",), when="NEW.level > 1"),
        Index("by_level", text("(level + 1)"), postgresql_where=text("level > 0")),
        CheckConstraint("level < 100", name="few"),
        Statistics("level_title", "level", "title"),
        Column("twice", BigInteger, Computed("level * 2", persisted=True)),
    )


def calling(call: str = "desk.level()") -> tuple[SchemaItem, ...]:
    """Everything that may call a function."""
    return (
        Policy("Mine", "SELECT", using=f"id = {call}::integer"),
        Trigger("touch", "BEFORE", "UPDATE", "desk.touch()", when=f"NEW.id = {call}::integer"),
        Index("by_call", text(f"(id + {call}::integer)")),
        CheckConstraint(f"id <> {call}::integer + 1000", name="far"),
        Column("level", Integer, server_default=text(f"{call}::integer")),
        Column("computed", Integer, Computed(f"id + {call}::integer", persisted=True)),
    )


CHANGES: dict[str, tuple[Callable[[], MetaData], Callable[[], MetaData]]] = {
    "serial to identity": (
        lambda: desk(Grant("USAGE", to="anon", sequence_of="id")),
        lambda: desk(
            Grant("USAGE", to="anon", sequence_of="id"),
            id=Column("id", Integer, Identity(), primary_key=True),
        ),
    ),
    "identity to serial": (
        lambda: desk(
            Grant("USAGE", to="anon", sequence_of="id"),
            id=Column("id", Integer, Identity(always=True), primary_key=True),
        ),
        lambda: desk(Grant("USAGE", to="anon", sequence_of="id")),
    ),
    "type of a column that is used": (
        lambda: desk(Column("level", Integer), *used(), more=TOUCH),
        lambda: desk(Column("level", BigInteger), *used(), more=TOUCH),
    ),
    "type of a column with a default": (
        lambda: desk(Column("level", Text, server_default=text("'7'"))),
        lambda: desk(Column("level", Integer, server_default=text("7"))),
    ),
    "type of a column with a CHECK that the other type cannot have": (
        lambda: desk(
            Column("level", Text),
            CheckConstraint("level ~ '^[0-9]'", name="number"),
            Index("lower", text("lower(level)")),
        ),
        lambda: desk(Column("level", Integer), CheckConstraint("level > 0", name="number")),
    ),
    "result of a function that is called": (
        lambda: desk(*calling(), more=functions(function(), TOUCH)),
        lambda: desk(*calling(), more=functions(function(returns="bigint"), TOUCH)),
    ),
    "defaulted argument of a function that is called": (
        lambda: desk(*calling(), more=functions(function(), TOUCH)),
        lambda: desk(*calling(), more=functions(function(arguments="a integer DEFAULT 1"), TOUCH)),
    ),
    "defaulted argument taken away": (
        lambda: desk(
            *calling("desk.level(1)"),
            more=functions(function(arguments="a integer, b integer DEFAULT 1"), TOUCH),
        ),
        lambda: desk(*calling("desk.level(1)"), more=functions(function(arguments="a integer"), TOUCH)),
    ),
    "name of an argument": (
        lambda: desk(*calling("desk.level(1)"), more=functions(function(arguments="a integer"), TOUCH)),
        lambda: desk(*calling("desk.level(b => 1)"), more=functions(function(arguments="b integer"), TOUCH)),
    ),
    "function that is parsed at once": (
        lambda: desk(*calling(), more=functions(function(), TOUCH)),
        lambda: desk(
            *calling(),
            more=functions(
                function(body="BEGIN ATOMIC SELECT desk.third(7); END"),
                function("third", arguments="a integer", body="RETURN desk.fourth() + a"),
                function("fourth"),
                TOUCH,
            ),
        ),
    ),
    "function that was parsed at once": (
        lambda: desk(*calling(), more=functions(function(body="RETURN 3"), TOUCH)),
        lambda: desk(*calling(), more=functions(function(), TOUCH)),
    ),
    "result of a function that one that was parsed at once calls": (
        lambda: desk(
            *calling("desk.second()"),
            more=functions(function(), function("second", body="RETURN desk.level()"), TOUCH),
        ),
        lambda: desk(
            *calling("desk.second()"),
            more=functions(
                function(returns="bigint"), function("second", body="RETURN desk.level()::integer"), TOUCH
            ),
        ),
    ),
    "function whose call is a text too": (
        lambda: desk(),
        lambda: desk(
            Policy("Mine", "SELECT", using="public.own() > 0 OR title = 'public.own()'"),
            more=lambda metadata: Function(
                "own", metadata, language="sql", returns="integer", body="SELECT 1"
            ),
        ),
    ),
    "functions declared before what they call": (
        lambda: desk(),
        lambda: desk(
            Policy("Mine", "SELECT", using="id = desk.first()"),
            more=functions(
                function("first", body="SELECT desk.second()"),
                function("second", body="SELECT desk.third()"),
                function("third"),
            ),
        ),
    ),
    "trigger that calls a function of others which is missing": (
        lambda: desk(),
        lambda: desk(
            Trigger("touch", "BEFORE", "UPDATE", "touch()"),
            more=lambda metadata: Function(
                "touch", metadata, returns="trigger", body="BEGIN RETURN NEW; END", if_missing=True
            ),
        ),
    ),
    "primary key with one more column": (
        lambda: desk(
            Column("title", Text, nullable=False),
            PrimaryKeyConstraint("id", name="tickets_pkey"),
            id=Column("id", Integer),
        ),
        lambda: desk(
            Column("title", Text, nullable=False),
            PrimaryKeyConstraint("id", "title", name="tickets_pkey"),
            id=Column("id", Integer),
        ),
    ),
    "primary key with a column that could be NULL": (
        lambda: keyed("id"),
        lambda: keyed("id", "title"),
    ),
    "primary key without a column that then may be NULL": (
        lambda: keyed("id", "title"),
        lambda: keyed("id"),
    ),
    "primary key of another column, that could be NULL": (
        lambda: keyed("id"),
        lambda: keyed("title"),
    ),
    "unique key that a foreign key needs": (
        lambda: desk(UniqueConstraint("id", name="once"), more=children),
        lambda: desk(UniqueConstraint("id", "title", name="once"), more=children),
    ),
    "unique index that a foreign key needs": (
        lambda: desk(Index("once", "id", unique=True), id=Column("id", Integer), more=children),
        lambda: desk(
            Index("once", "id", unique=True, postgresql_include=["title"]),
            id=Column("id", Integer),
            more=children,
        ),
    ),
    "index that comes to call a function that is replaced": (
        lambda: desk(Index("by_call", "id"), more=function()),
        lambda: desk(Index("by_call", text("(id + desk.level())")), more=function(returns="bigint")),
    ),
    "index that comes to call a function that is added": (
        lambda: desk(Index("by_call", "id")),
        lambda: desk(Index("by_call", text("(id + desk.level())")), more=function()),
    ),
    "index that the other type of its column cannot have": (
        lambda: desk(Column("level", Text), Index("by_level", text("lower(level)"))),
        lambda: desk(Column("level", Integer), Index("by_level", text("(level + 1)"))),
    ),
    "column and all that uses it dropped": (
        lambda: desk(Column("level", Integer), *used(), more=TOUCH),
        lambda: desk(more=TOUCH),
    ),
    "column and all that uses it added": (
        lambda: desk(more=TOUCH),
        lambda: desk(Column("level", Integer), *used(), more=TOUCH),
    ),
    "policy without the column that is dropped": (
        lambda: desk(Column("level", Integer), Policy("Urgent", "SELECT", using="level > 1")),
        lambda: desk(Policy("Urgent", "SELECT", using="id > 1")),
    ),
    "generated column that is used": (
        lambda: desk(
            Column("level", Integer, Computed("id * 2", persisted=True)),
            ColumnOptions("level", n_distinct=3),
            Grant("SELECT", to="anon", columns=("level",)),
            *used()[:5],
            more=TOUCH,
        ),
        lambda: desk(
            Column("level", Integer, Computed("id * 3", persisted=True)),
            ColumnOptions("level", n_distinct=3),
            Grant("SELECT", to="anon", columns=("level",)),
            *used()[:5],
            more=TOUCH,
        ),
    ),
    "enum type in another schema": (
        lambda: desk(),
        lambda: desk(*states()),
    ),
    "enum type that is an array beside": (
        lambda: desk(),
        lambda: desk(*states(schema=None)),
    ),
    "enum types of one name": (
        lambda: desk(),
        lambda: desk(*enums_of_one_name()),
    ),
    "table with enum types of one name": (
        lambda: MetaData(),
        lambda: desk(*enums_of_one_name()),
    ),
    "sequence by itself": (
        lambda: desk(),
        lambda: numbered(),
    ),
    "sequence by itself in another schema": (
        lambda: desk(),
        lambda: numbered(schema="desk"),
    ),
    "sequence by itself in larger steps": (
        lambda: numbered(schema="desk"),
        lambda: numbered(4, schema="desk"),
    ),
    "sequence by itself that is granted": (
        lambda: desk(),
        lambda: numbered(schema="desk", to="anon"),
    ),
    "sequence by itself that others are granted": (
        lambda: numbered(to="anon"),
        lambda: numbered(to="authenticated"),
    ),
    "sequence by itself under another name": (
        lambda: numbered(name="numbers", to="anon"),
        lambda: numbered(to="authenticated"),
    ),
    "sequence that nothing uses under another name": (
        lambda: numbered(name="numbers", schema="desk", used=False, to="anon"),
        lambda: numbered(schema="desk", used=False, to="anon"),
    ),
    "sequence that nothing uses": (
        lambda: desk(),
        lambda: numbered(used=False, to="anon"),
    ),
    "sequence that nothing uses in larger steps": (
        lambda: numbered(schema="desk", used=False),
        lambda: numbered(4, schema="desk", used=False),
    ),
    "policies that read tables which come later": (
        lambda: desk(),
        lambda: desk(more=readers()),
    ),
    "policies that read tables of another schema": (
        lambda: desk(),
        lambda: desk(more=readers("desk")),
    ),
    "policy that reads a table which is added, by its schema": (
        lambda: desk(),
        lambda: reading(
            "SELECT FROM public.others WHERE public.others.id = tickets.id OR title <> 'public.others'"
        ),
    ),
    "policy that reads a table of another schema which is added": (
        lambda: desk(),
        lambda: reading('SELECT FROM "desk" . others AS o WHERE o.id = tickets.id', schema="desk"),
    ),
    "policy that reads a table which is added, and its own": (
        lambda: desk(),
        lambda: reading(
            "SELECT FROM tickets AS t JOIN others USING (id) WHERE t.id IN (SELECT tickets.id FROM tickets)"
        ),
    ),
    "policy that reads a column which is added": (
        lambda: reading("SELECT FROM others WHERE id > 1"),
        lambda: reading("SELECT FROM others WHERE others.level = tickets.id", Column("level", Integer)),
    ),
    "policy that reads a column which is added in another schema": (
        lambda: reading("SELECT FROM desk.others WHERE id > 1", schema="desk"),
        lambda: reading("SELECT FROM desk.others WHERE level > 1", Column("level", Integer), schema="desk"),
    ),
    "policy that reads a column which gets another type": (
        lambda: reading("SELECT FROM others WHERE level ~ '1'", Column("level", Text)),
        lambda: reading("SELECT FROM others WHERE level > 1", Column("level", Integer)),
    ),
    "policies that read a column which is added, beside a table of the same name": (
        lambda: reading("SELECT FROM desk.others", schema="desk", more=hidden("desk")),
        lambda: reading(
            "SELECT FROM desk.others WHERE level > 1",
            Column("level", Integer),
            schema="desk",
            more=hidden("desk"),
        ),
    ),
    "enum type of a column": (
        lambda: desk(*states(), Policy("Open", "SELECT", using="state = 'open'")),
        lambda: desk(
            *states(name="mood"),
            Policy("Open", "SELECT", using="state = 'open'"),
        ),
    ),
    "enum type with signs in its values": (
        lambda: desk(),
        lambda: desk(
            Column("signs", ARRAY(Enum('it\'s "%"', "a\\b", ":c", "d+", name="100%", schema="desk")))
        ),
    ),
    "enum type": (
        lambda: desk(),
        lambda: desk(Column("mood", Enum("good", "bad", name="mood"), server_default="good"), more=moods),
    ),
    "sequence": (
        lambda: desk(),
        lambda: desk(Column("number", Integer, Sequence("numbers"))),
    ),
    "texts of limited length": (
        lambda: desk(),
        lambda: desk(
            Column("state", String(20), server_default="open"),
            CheckConstraint("state IN ('open', 'it''s')", name="state"),
            Policy("Open", "SELECT", using="state IN ('open', 'new')"),
            Index("states", "id", postgresql_where=text("state IN ('open', 'new')")),
        ),
    ),
    "texts with signs that mean something to drivers": (
        lambda: desk(),
        lambda: desk(
            Column("state", Text, server_default=text(r"'100% \:new'")),
            CheckConstraint(r"state LIKE '%\:new'", name="new"),
            more=lambda metadata: Table(
                "signs", metadata, Column("sign", Text), CheckConstraint("sign LIKE '%s'", name="sign")
            ),
        ),
    ),
    "names with a sign that means something to drivers": (
        lambda: MetaData(),
        lambda: odd_names(),
    ),
    "column whose default calls what is replaced dropped": (
        lambda: desk(Column("level", Integer, server_default=text("desk.level()")), more=function()),
        lambda: desk(more=function(returns="bigint")),
    ),
    "column with a foreign key dropped": (
        lambda: desk(more=children),
        lambda: desk(
            more=lambda metadata: Table(
                "notes", metadata, Column("id", Integer, primary_key=True), Column("email", Text)
            )
        ),
    ),
    "table added while a function is replaced": (
        lambda: desk(more=function()),
        lambda: desk(more=functions(function(returns="bigint"), marks)),
    ),
    "table added while a function is replaced that a dropped column calls": (
        lambda: desk(Column("level", Integer, server_default=text("desk.level()")), more=function()),
        lambda: desk(more=functions(function(returns="bigint"), marks)),
    ),
    "table added while a type changes that a dropped column is computed from": (
        lambda: desk(
            Column("level", Integer), Column("twice", Integer, Computed("level * 2", persisted=True))
        ),
        lambda: desk(Column("level", BigInteger), more=children),
    ),
    "table that nobody can guess dropped": (
        lambda: desk(more=functions(function(), TOUCH, children, odd_table)),
        lambda: desk(more=functions(function(returns="bigint"), TOUCH, children)),
    ),
    "options of a column that is added": (
        lambda: desk(),
        lambda: desk(Column("level", Integer), ColumnOptions("level", n_distinct=3)),
    ),
    "columns for which the table is rewritten added": (
        lambda: desk(),
        lambda: desk(
            Column("key", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
            Column("number", Integer, Identity()),
            Column("twice", Integer, Computed("id * 2", persisted=True)),
        ),
    ),
    "columns that nobody can guess dropped": (
        lambda: desk(
            Column("place", Point),
            Column("number", Integer, Sequence("numbers"), server_default=text("nextval('numbers')")),
            Column("odd", Text, nullable=False, server_default=text(r"'a:b \:c 100%'"), comment=":d %s"),
            Column("key", Integer, Identity(always=True, start=7, cycle=True)),
            Column("Sum", Integer, Computed("id * 2", persisted=True)),
            Column("state", String(20, collation="C")),
            ColumnOptions("state", n_distinct=3),
        ),
        lambda: desk(),
    ),
    "table with what belongs to it": (
        lambda: desk(),
        lambda: desk(more=children),
    ),
}


# SQLAlchemy says so of what somebody has made by hand.
@pytest.mark.filterwarnings("ignore:Did not recognize type 'point'")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_models_goes_up_and_down(
    name: str, empty: Database, prove: Callable[..., Proof]
) -> None:
    before, after = CHANGES[name]
    proof = prove(empty, metadata=after(), version_table_schema=None, include_schemas=True)
    with proof.engine.begin() as connection:
        before().create_all(connection)
        if connection.scalar(text("SELECT to_regclass('tickets')")):
            connection.execute(text(ROWS))

    generated = proof.generate()

    assert generated.changes
    proof.of(generated.decided)


@pytest.mark.parametrize(
    "metadata",
    [
        desk(*states()),
        desk(*states(schema="public")),
        in_schema(*states(schema=None)),
        in_schema(*states()),
        desk(*enums_of_one_name()),
        numbered(),
        numbered(schema="desk"),
        numbered(used=False, to="anon"),
        desk(more=readers()),
        desk(more=readers("desk")),
        desk(more=function(body="SELECT max(id) FROM tickets", volatility="STABLE")),
        odd_names(),
    ],
    ids=[
        "enum type in another schema",
        "enum type in a schema that is in the path",
        "enum type in the path, table in another schema",
        "enum type beside its table",
        "enum types of one name",
        "sequence by itself",
        "sequence by itself in another schema",
        "sequence that nothing uses",
        "policies that read tables which come later",
        "policies that read tables of another schema",
        "function that reads a table",
        "names with a sign that means something to drivers",
    ],
)
def test_what_create_all_makes_differs_in_nothing(
    metadata: MetaData, empty: Database, prove: Callable[..., Proof]
) -> None:
    proof = prove(
        empty, metadata=metadata, version_table_schema=None, include_schemas=True, include_object=None
    )

    with proof.engine.begin() as connection:
        metadata.create_all(connection)

    assert proof.generate().changes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (forced(forced=False), forced(to_tickets(), forced=True)),
        (forced(forced=True), forced(to_tickets(), forced=False)),
        (forced(to_tickets(), forced=True), forced(to_tickets("CASCADE"), forced=False)),
        (forced(to_tickets(), forced=True), forced(to_tickets("CASCADE"), forced=True)),
    ],
    ids=[
        "forced, key added",
        "no longer forced, key added",
        "no longer forced, another key",
        "forced as before, another key",
    ],
)
def test_a_foreign_key_is_validated_while_row_security_is_not_forced(
    before: MetaData, after: MetaData, empty: Database, prove: Callable[..., Proof]
) -> None:
    proof = prove(empty, metadata=after, version_table_schema=None)
    with proof.engine.begin() as connection:
        before.create_all(connection)
    empty.execute("INSERT INTO tickets VALUES (1); INSERT INTO notes VALUES (1)", user=empty.superuser)

    # Also in the downgrade, a key is validated.
    proof.of(proof.generate())


@pytest.mark.parametrize("schema", ["public", None, "desk"])
def test_a_value_that_an_enum_type_lacks_is_added(
    schema: str | None, empty: Database, prove: Callable[..., Proof]
) -> None:
    values = ("open", "sent", "paid")
    before = desk(*states(schema=schema, values=("open", "paid")), more=TOUCH)
    after = desk(*states(schema=schema, values=values), *using_sent(schema), more=sent_later(schema))
    with empty.engine().begin() as connection:
        before.create_all(connection)
    empty.execute(ROWS)
    proof = prove(empty, metadata=after, version_table_schema=None, include_schemas=True)
    type_ = f"type {schema or 'public'}.state"
    found = {**proof.snapshot(), type_: None}

    generated = proof.generate()
    proof.run(generated.upgrade)

    assert proof.generate().changes == ()
    proof.run(generated.downgrade)
    assert {**proof.snapshot(), type_: None} == found
    # The value stays, and is there again.
    proof.run(generated.upgrade)


def test_an_enum_type_of_another_owner_is_reported(empty: Database, prove: Callable[..., Proof]) -> None:
    models = desk(*states())
    with empty.engine().begin() as connection:
        models.create_all(connection)
    empty.execute(f"ALTER TYPE desk.state OWNER TO {quoted(empty.superuser)}", user=empty.superuser)

    proof = prove(empty, metadata=models, version_table_schema=None)

    assert proof.generate().titles == ("modify owner state on desk",)


@pytest.mark.parametrize("schema", [None, "desk"])
@pytest.mark.parametrize(
    ("change", "next_number"),
    [
        ("DROP SEQUENCE {} CASCADE", 5),
        ("ALTER SEQUENCE {} RENAME TO numbers", 7),
    ],
    ids=["dropped", "renamed"],
)
def test_a_sequence_goes_on(
    change: str, next_number: int, schema: str | None, empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata = numbered(schema=schema)
    name = quoted(schema, "Odd numbers")
    with empty.engine().begin() as connection:
        metadata.create_all(connection)
    empty.execute(ROWS)
    empty.execute(f"DELETE FROM tickets WHERE number = 5; {change.format(name)}")
    proof = prove(empty, metadata=metadata, version_table_schema=None, include_schemas=True)

    proof.of(proof.generate())

    assert empty.execute(f"SELECT nextval('{name}')") == [(next_number,)]


def test_a_sequence_that_may_have_been_renamed_is_decided_about(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    with empty.engine().begin() as connection:
        numbered(4, name="numbers", schema="desk", used=False).create_all(connection)
    models = numbered(schema="desk", used=False)

    generated = prove(empty, metadata=models, version_table_schema=None).generate()

    assert generated.refuses
    assert (
        "decide about sequence desk.numbers (or is it what Odd numbers was called? then let this revision "
        'do nothing but ALTER SEQUENCE desk.numbers RENAME TO "Odd numbers")'
    ) in generated.upgrade


def using_sent(schema: str | None) -> tuple[SchemaItem, ...]:
    """All that may use a value of an enum type."""
    type_ = Enum("open", "sent", "paid", name="state", schema=schema)
    return (
        Column("state", type_, server_default="sent"),
        Column("was", ARRAY(type_), server_default=text("'{sent}'")),
        Column("on_its_way", Boolean, Computed("state = 'sent'", persisted=True)),
        CheckConstraint("state <> 'sent' OR title IS NOT NULL", name="titled"),
        Index("sent", "id", postgresql_where=text("state = 'sent'")),
        Policy("Sent", "SELECT", using="state = 'sent' OR state = desk.later() OR desk.same(state) = 'sent'"),
        Trigger("touch", "BEFORE", "UPDATE", "desk.touch()", when="NEW.state = 'sent'"),
    )


def sent_later(schema: str | None) -> Callable[[MetaData], object]:
    """Functions and a table that use it too."""
    name = quoted(schema, "state")
    column: Column[Any] = Column(
        "state", Enum("open", "sent", "paid", name="state", schema=schema), server_default="sent"
    )
    return functions(
        TOUCH,
        function("later", returns=name, body=f"RETURN 'sent'::{name}"),
        function("same", returns=name, arguments=f"state {name} DEFAULT 'sent'", body="SELECT state"),
        function("first", returns=name, body="BEGIN ATOMIC SELECT state FROM tickets; END"),
        lambda metadata: Table("letters", metadata, column),
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("open", "lost", "paid"), "decide about enum type state on desk, whose values are"),
        (("paid", "open"), "decide about enum type state on desk, whose values are"),
        (("open", "sold"), "nothing but ALTER TYPE desk.state RENAME VALUE 'sold' TO 'paid')"),
    ],
    ids=["one more", "in another order", "under another name"],
)
def test_values_that_cannot_be_taken_away_are_decided_about(
    values: tuple[str, ...], message: str, empty: Database, prove: Callable[..., Proof]
) -> None:
    type_ = Enum("open", "paid", name="state", schema="desk")
    models = desk(Column("state", type_), Policy("Paid", "SELECT", using="state = 'paid'"))
    with empty.engine().begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA desk")
        connection.exec_driver_sql(f"CREATE TYPE desk.state AS ENUM {values}")
        desk(Column("state", type_)).create_all(connection)
    proof = prove(empty, metadata=models, version_table_schema=None)

    generated = proof.generate()

    assert generated.refuses
    assert message in generated.upgrade
