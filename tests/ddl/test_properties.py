"""Whatever is declared, created and compared is clean; and one change of it is found."""

# ruff: noqa: E501

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.schema import SchemaItem

from tests.databases import Templates
from tests.ddl.proof import stay_prepared
from workflow_models.ddl import Function, Grant, Policy, RowSecurity, Schema, Trigger
from workflow_models.ddl.declared import compare

ROLES = ("authenticated", "workflow_worker", "anon", "PUBLIC")
COLUMNS = ("id", "owner", "title", "urgent", "opened")
EXPRESSIONS = (
    "true",
    "owner = 1",
    "urgent AND NOT (owner IS NULL)",
    "title LIKE 'a%' OR title ~ '^b:c'",
    "desk.level() > 2",
    "owner = (SELECT desk.level())",
    "EXISTS (SELECT FROM tickets AS t WHERE t.owner = tickets.id)",
    "title = ANY (ARRAY['x', 'it''s', 'a \"quoted\" one', '100%'])",
    "coalesce(owner, 0) BETWEEN 1 AND 5",
    "opened > now() - interval '1 day'",
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=15).filter(
    lambda name: "\0" not in name and name.strip() == name
)
INDEXED: tuple[Any, ...] = (*COLUMNS, text("opened DESC NULLS LAST"), text("lower(title)"))
ROLE_LISTS = st.lists(st.sampled_from(ROLES[:3]), min_size=1, max_size=3, unique=True) | st.just(["PUBLIC"])
# All that is not compared to the letter: what is a comment or a string in a body may be anything.
BODIES = st.sampled_from(
    ("SELECT 1", "SELECT 1 -- :one %s 100%", "\nSELECT '$$ :x \\ ''quoted'' '::text IS NULL\n")
)


@st.composite
def policies(draw: st.DrawFn) -> list[SchemaItem]:
    made = []
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        command = draw(st.sampled_from(("ALL", "SELECT", "INSERT", "UPDATE", "DELETE")))
        using = draw(st.sampled_from(EXPRESSIONS)) if command != "INSERT" else None
        check = draw(st.sampled_from(EXPRESSIONS)) if command in ("ALL", "INSERT", "UPDATE") else None
        made.append(
            Policy(
                name, command, to=draw(ROLE_LISTS), restrictive=draw(st.booleans()), using=using, check=check
            )
        )
    return list(made)


@st.composite
def grants(draw: st.DrawFn) -> list[SchemaItem]:
    made = (
        Grant(
            draw(
                st.lists(st.sampled_from(("SELECT", "INSERT", "UPDATE")), min_size=1, max_size=2, unique=True)
            ),
            to=draw(ROLE_LISTS),
            columns=draw(st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True)),
        )
        for _ in range(draw(st.integers(0, 3)))
    )
    # The same twice is refused.
    return list({(each.privileges, each.to, each.columns): each for each in made}.values())


@st.composite
def indexes(draw: st.DrawFn) -> list[SchemaItem]:
    return [
        Index(
            f"by_{number}",
            *draw(
                st.lists(
                    st.sampled_from(INDEXED),
                    min_size=1,
                    max_size=3,
                    unique_by=str,
                )
            ),
            unique=draw(st.booleans()),
            postgresql_where=draw(st.none() | st.sampled_from((text("urgent"), text("owner IS NOT NULL")))),
            postgresql_include=draw(st.sampled_from(((), ("title",)))),
        )
        for number in range(draw(st.integers(0, 3)))
    ]


@st.composite
def declarations(draw: st.DrawFn) -> MetaData:
    metadata = MetaData()
    Schema("desk", metadata, usage=draw(st.lists(st.sampled_from(ROLES[:3]), max_size=2, unique=True)))
    Function(
        "level",
        metadata,
        schema="desk",
        language="sql",
        returns="integer",
        body="SELECT 3",
        volatility="STABLE",
    )
    for number in range(draw(st.integers(0, 2))):
        Function(
            draw(st.sampled_from(("f", "Of two words"))) + str(number),
            metadata,
            schema="desk",
            arguments=draw(
                st.sampled_from(("", "a integer, b text[]", "a integer DEFAULT 7, b text DEFAULT 'x, ('"))
            ),
            language="sql",
            returns="boolean",
            body=draw(BODIES).replace("SELECT 1", "SELECT true"),
            volatility=draw(st.sampled_from(("VOLATILE", "STABLE", "IMMUTABLE"))),
            security=draw(st.sampled_from(("INVOKER", "DEFINER"))),
            parallel=draw(st.sampled_from(("UNSAFE", "RESTRICTED", "SAFE"))),
            settings=draw(st.sampled_from(({}, {"search_path": "pg_catalog, pg_temp"}))),
            execute=draw(st.lists(st.sampled_from(ROLES[:3]), max_size=2, unique=True)),
        )
    Function("touch", metadata, schema="desk", returns="trigger", body=" BEGIN RETURN NEW; END ")
    Table(
        "tickets",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("owner", Integer),
        Column("title", Text, server_default=text("'it''s: new'")),
        Column("urgent", Boolean, server_default=text("false")),
        Column("opened", DateTime(timezone=True), server_default=text("now()")),
        RowSecurity(enabled=draw(st.booleans()), forced=draw(st.booleans())),
        Trigger(
            "touch",
            draw(st.sampled_from(("BEFORE", "AFTER"))),
            draw(st.lists(st.sampled_from(("INSERT", "UPDATE", "DELETE")), min_size=1, unique=True)),
            "desk.touch()",
            enabled=draw(st.sampled_from(("ORIGIN", "DISABLED", "REPLICA", "ALWAYS"))),
        ),
        *draw(policies()),
        *draw(grants()),
        *draw(indexes()),
    )
    return metadata


# Each changes something, whatever is declared.
MUTATIONS: dict[str, Callable[[Connection], Any]] = {
    sql: (
        lambda connection, sql=sql: connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
    )
    for sql in (
        'CREATE POLICY " added " ON tickets USING (false)',
        "CREATE INDEX added ON tickets (id, owner DESC)",
        "GRANT TRUNCATE ON tickets TO anon",
        "GRANT REFERENCES (title) ON tickets TO anon",
        "GRANT CREATE ON SCHEMA desk TO anon",
        "ALTER FUNCTION desk.level() SECURITY DEFINER",
        "ALTER FUNCTION desk.level() COST 7",
        "GRANT EXECUTE ON FUNCTION desk.touch() TO PUBLIC",
        "CREATE FUNCTION desk.level(integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE tickets ALTER title SET DEFAULT 'its: new'",
        "ALTER TRIGGER touch ON tickets RENAME TO touched",
        "ALTER TABLE tickets ALTER owner SET NOT NULL",
        "DROP TRIGGER touch ON tickets",
    )
} | {
    "row security": lambda connection: connection.exec_driver_sql(
        "DO $$ BEGIN EXECUTE 'ALTER TABLE tickets ' || (SELECT CASE WHEN relrowsecurity THEN 'DISABLE' ELSE 'ENABLE' END "
        "FROM pg_class WHERE oid = 'tickets'::regclass) || ' ROW LEVEL SECURITY'; END $$",
        execution_options={"no_parameters": True},
    )
}


@pytest.fixture(scope="module")
def engine(templates: Templates) -> Iterator[Engine]:
    database = templates.clone("empty")
    engine = create_engine(database.url(), pool_size=1, max_overflow=0)
    event.listen(engine, "connect", stay_prepared)
    yield engine
    engine.dispose()
    templates.drop(database)


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(metadata=declarations(), mutation=st.sampled_from(sorted(MUTATIONS)))
def test_what_is_created_is_clean_until_it_is_changed(
    engine: Engine, metadata: MetaData, mutation: str
) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = public")
        metadata.create_all(connection)

        assert compare(connection, metadata) == []

        MUTATIONS[mutation](connection)
        assert len(compare(connection, metadata)) in (1, 2)
        connection.rollback()
