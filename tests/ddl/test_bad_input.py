"""What cannot be declared, or cannot be compared, is said so that one knows where."""

# SQL reads better in its own lines.
# ruff: noqa: E501

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import CheckConstraint, Column, Index, Integer, MetaData, Table, event, text
from sqlalchemy.schema import SchemaItem

from tests.databases import Database
from tests.ddl.proof import Proof
from workflow_models.base import metadata as models
from workflow_models.ddl import ColumnOptions, Function, Grant, Policy, RowSecurity, Schema, Trigger
from workflow_models.ddl.declared import ComparisonError, compare


def declared(*items: SchemaItem) -> MetaData:
    metadata = MetaData()
    Table("tickets", metadata, Column("id", Integer, primary_key=True), RowSecurity(), *items)
    return metadata


def in_desk(*functions: dict[str, str], usage: str = "PUBLIC") -> MetaData:
    metadata = MetaData()
    Schema("desk", metadata, usage=usage)
    for function in functions:
        Function("f", metadata, schema="desk", language="sql", returns="integer", body="SELECT 1", **function)  # type: ignore[arg-type]
    return metadata


REFUSED = {
    "policy that does not parse": (
        declared(Policy("Mine", using="id = = 1")),
        """Policy 'Mine' on tickets: syntax error at or near "=\"""",
    ),
    "policy on a missing column": (
        declared(Policy("Mine", using="owner = 1")),
        """Policy 'Mine' on tickets: column "owner" does not exist""",
    ),
    "policy for a missing role": (
        declared(Policy("Mine", to="nobody_here", using="true")),
        """Policy 'Mine' on tickets: role "nobody_here" does not exist""",
    ),
    "grant to a missing role": (
        declared(Grant("SELECT", to="nobody_here")),
        """Grant on tickets: role "nobody_here" does not exist""",
    ),
    "trigger that calls a missing function": (
        declared(Trigger("touch", "BEFORE", "UPDATE", "missing()")),
        "Trigger 'touch' on tickets: function missing() does not exist",
    ),
    "schema for a missing role": (
        in_desk(usage="nobody_here"),
        """Schema 'desk': role "nobody_here" does not exist""",
    ),
    "function for a missing role": (
        in_desk({"execute": "nobody_here"}),
        """Function desk.f: role "nobody_here" does not exist""",
    ),
    "functions whose types are the same": (
        in_desk({"arguments": "a int"}, {"arguments": "a integer"}),
        "Function desk.f: declared twice with arguments of the same types",
    ),
    "CHECK that leaves its parentheses": (
        declared(CheckConstraint("id > 0) OR (true", name="positive")),
        "CHECK positive on tickets: its expression leaves its parentheses: id > 0) OR (true",
    ),
    "CHECK that ends in a comment": (
        declared(CheckConstraint("id > 0 -- that's it", name="positive")),
        (
            "CHECK positive on tickets: its expression ends in a comment, that goes on behind it: "
            "id > 0 -- that's it"
        ),
    ),
    "index that leaves its parentheses": (
        declared(Index("by_id", text("(id + 1), (id"))),
        "Index by_id on tickets: its expression does not close its parentheses: (id + 1), (id",
    ),
    "constraint that does not parse": (
        declared(CheckConstraint("id >", name="positive")),
        """Table 'tickets': syntax error at or near ")\"""",
    ),
}


@pytest.mark.parametrize(("metadata", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_an_item_that_postgresql_refuses_is_named(
    metadata: MetaData, message: str, empty: Database, prove: Callable[..., Proof]
) -> None:
    with pytest.raises(CommandError) as raised:
        prove(empty, metadata=metadata).generate()

    first, *_ = str(raised.value).splitlines()
    assert first == f"the models declare what PostgreSQL refuses. {message}"


@pytest.mark.parametrize(
    "item", [Grant("SELECT", to="anon", columns=("zz",)), ColumnOptions("zz", n_distinct=5)]
)
def test_an_item_about_a_column_that_nobody_declares_is_named(
    item: SchemaItem, empty: Database, prove: Callable[..., Proof]
) -> None:
    with pytest.raises(CommandError) as raised:
        prove(empty, metadata=declared(item)).generate()

    assert str(raised.value) == (
        f"the models declare what PostgreSQL refuses. {type(item).__name__} on tickets: "
        'column "zz" of relation "tickets" does not exist\nNo column of that name is declared there.'
    )


def test_a_function_that_names_a_missing_table_is_named(empty: Database, prove: Callable[..., Proof]) -> None:
    metadata = MetaData()
    Schema("desk", metadata)
    Function(
        "latest", metadata, schema="desk", language="sql", returns="integer", body="SELECT id FROM missing"
    )

    with pytest.raises(CommandError) as raised:
        prove(empty, metadata=metadata).generate()

    assert str(raised.value).startswith(
        'the models declare what PostgreSQL refuses. Function desk.latest: relation "missing" does not exist\n'
    )


@pytest.mark.parametrize(
    ("function", "missing", "said"),
    [
        (
            {"returns": "integer", "body": "BEGIN ATOMIC SELECT id FROM tickets; END"},
            "tickets",
            'relation "tickets" does not exist',
        ),
        (
            {"returns": "integer", "body": "RETURN (SELECT id FROM public.tickets)"},
            "tickets",
            'relation "public.tickets" does not exist',
        ),
        (
            {"returns": "SETOF tickets", "body": "SELECT * FROM tickets"},
            "tickets",
            'type "tickets" does not exist',
        ),
        (
            {"returns": "integer", "body": "RETURN (SELECT note FROM notes)"},
            "notes.note",
            'column "note" does not exist',
        ),
        (
            {"returns": "integer", "body": "RETURN (SELECT notes.note FROM notes)"},
            "notes.note",
            "column notes.note does not exist",
        ),
    ],
    ids=["table", "table by its schema", "type of a table", "column", "column by its table"],
)
def test_a_function_that_is_parsed_before_what_it_names_is_there_is_told(
    function: dict[str, str], missing: str, said: str, empty: Database, prove: Callable[..., Proof]
) -> None:
    empty.execute("CREATE TABLE notes (id integer)")
    metadata = declared()
    Table("notes", metadata, Column("id", Integer), Column("note", Integer))
    Function("latest", metadata, language="sql", **function)  # type: ignore[arg-type]

    with pytest.raises(CommandError) as raised:
        prove(empty, metadata=metadata).generate()

    first, *_, last = str(raised.value).splitlines()
    assert first == f"the models declare what PostgreSQL refuses. Function public.latest: {said}"
    assert last == (
        f"{missing} is declared, and not there yet: leave out what reads it in the revision that adds it, "
        "upgrade, and declare that then."
    )


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ((Policy("Mine", using="true"), Policy("Mine", using="false")), "Policy 'Mine'"),
        ((RowSecurity(forced=True),), "RowSecurity"),
        ((Grant("SELECT", to="anon"), Grant(["SELECT"], to=["anon"])), "Grant"),
    ],
)
def test_two_items_about_the_same_are_refused_when_they_are_declared(
    items: tuple[SchemaItem, ...], what: str
) -> None:
    with pytest.raises(ValueError, match=f"^{what} is declared twice on tickets$"):
        declared(*items)


NOT_ONE_EXPRESSION = {
    "true) OR (true": "leaves its parentheses",
    "true) WITH CHECK (true": "leaves its parentheses",
    "ARRAY[1) > (2]": "leaves its parentheses",
    "title = ')' OR (id > 1": "does not close its parentheses",
    "id = 1 /* one /* two */ )": "does not end what it quotes or comments",
    "title = 'it''s": "does not end what it quotes or comments",
    'title = "it': "does not end what it quotes or comments",
    r"title = E'it\' OR title = ": "does not end what it quotes or comments",
    "title = $a$it $b$": "does not end what it quotes or comments",
    r"title = E'\\') OR ('": "leaves its parentheses",
}


@pytest.mark.parametrize(("sql", "wrong"), NOT_ONE_EXPRESSION.items())
@pytest.mark.parametrize(
    ("item", "what"),
    [
        (lambda sql: Policy("Mine", using=sql), "Policy 'Mine' on tickets: its using"),
        (lambda sql: Policy("Mine", check=sql), "Policy 'Mine' on tickets: its check"),
        (
            lambda sql: Trigger("touch", "BEFORE", "UPDATE", "f()", when=sql),
            "Trigger 'touch' on tickets: its when",
        ),
    ],
    ids=["using", "check", "when"],
)
def test_an_expression_that_is_more_or_less_than_one_is_refused_when_it_is_declared(
    item: Callable[[str], SchemaItem], what: str, sql: str, wrong: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(what)) as raised:
        declared(item(sql))

    assert str(raised.value) == f"{what} {wrong}: {sql}"


def test_arguments_that_leave_their_parentheses_are_refused_when_they_are_declared() -> None:
    with pytest.raises(
        ValueError, match=r"^function public.f: its list of arguments leaves its parentheses:"
    ):
        Function("f", MetaData(), arguments="a integer) RETURNS void (b", returns="integer", body="SELECT 1")


@pytest.mark.parametrize(
    "sql",
    [
        "id = 1 -- that's (all",
        "/* one ( /* two ) */ ' */ id = 1",
        "id::text <> E'\\'(' AND id::text <> '\\'",
        "id::text <> $$ ) $$ AND id::text <> $a$ $$ ( $a$",
        "id = (ARRAY[(1), 2])[1] -- (",
        "id = 1 -- (\n",
    ],
)
def test_whatever_an_expression_quotes_or_comments_is_declared(sql: str, empty: Database) -> None:
    metadata = declared(
        Policy("Mine", using=sql, check=sql),
        Trigger("touch", "BEFORE", "UPDATE", "touch()", when=sql.replace("id", "NEW.id")),
    )
    Function(
        "touch",
        metadata,
        returns="trigger",
        body="BEGIN RAISE NOTICE '%', $function$ done $function$; RETURN NEW; END",
    )
    with empty.engine().connect() as connection:
        metadata.create_all(connection)

        assert compare(connection, metadata) == []


def test_two_functions_of_one_signature_are_refused_when_they_are_declared() -> None:
    metadata = MetaData()
    Function("f", metadata, returns="integer", body="SELECT 1")

    with pytest.raises(ValueError, match="Function 'f' is declared twice on the MetaData"):
        Function("f", metadata, returns="integer", body="SELECT 2")


def test_roles_that_need_not_exist_are_passed_over(empty: Database, prove: Callable[..., Proof]) -> None:
    metadata = MetaData()
    Schema("desk", metadata, usage=("nobody_here", "PUBLIC"), if_exists=True)
    Function(
        "f",
        metadata,
        schema="desk",
        language="sql",
        returns="integer",
        body="SELECT 1",
        execute="nobody_here",
        if_exists=True,
    )
    with empty.engine().begin() as connection:
        metadata.create_all(connection)

    assert prove(empty, metadata=metadata, version_table_schema=None).generate().changes == ()


def test_without_the_privilege_to_make_clones_it_says_what_to_grant(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    upgraded.execute(f"REVOKE TEMPORARY ON DATABASE {upgraded.name} FROM PUBLIC, app_owner")

    with pytest.raises(CommandError) as raised:
        prove(upgraded).generate()

    assert str(raised.value) == (
        "nothing was compared: app_owner may not create temporary tables, on which declared objects are "
        f"compared: GRANT TEMPORARY ON DATABASE {upgraded.name} TO app_owner;"
    )


def test_where_a_schema_may_not_be_looked_into_it_says_what_to_grant(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata = in_desk()
    Table("tickets", metadata, Column("id", Integer, primary_key=True), schema="desk")
    with empty.engine().begin() as connection:
        metadata.create_all(connection)
    empty.execute("REVOKE USAGE ON SCHEMA desk FROM PUBLIC, app_owner", user=empty.superuser)

    with pytest.raises(CommandError) as raised:
        prove(empty, metadata=metadata, include_schemas=True).generate()

    assert str(raised.value) == (
        "nothing was compared: app_owner may not look into the schema desk, whoever owns what is in it: "
        "GRANT USAGE ON SCHEMA desk TO app_owner;"
    )


def test_in_a_read_only_transaction_it_says_so(upgraded: Database) -> None:
    with upgraded.engine().connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))

        with pytest.raises(ComparisonError, match=r"^the transaction is read-only, "):
            compare(connection, models)


@pytest.mark.parametrize(
    ("held", "table"),
    [
        ("LOCK TABLE workflow_execution_logs", "workflow_execution_logs"),
        (
            'ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs TO anon',
            "workflow_execution_logs",
        ),
        ("LOCK TABLE profiles", "profiles"),
    ],
    ids=["ours", "ours, with what is altered on it", "the application's"],
)
def test_behind_somebody_who_has_a_table_for_himself_it_gives_up_and_names_both(
    held: str, table: str, upgraded: Database, prove: Callable[..., Proof], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflow_models.ddl.declared._PATIENCE", "10ms")
    with upgraded.connect(autocommit=False) as other:
        other.execute(held.encode())
        pid = other.info.backend_pid

        with pytest.raises(CommandError) as raised:
            prove(upgraded).generate()

    assert str(raised.value) == (
        f"nothing was compared: pid {pid} has {table} under ACCESS EXCLUSIVE, for more than 10ms; "
        "run it again once that is done."
    )


def test_behind_somebody_who_has_what_a_policy_reads_for_himself_it_names_both(
    upgraded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflow_models.ddl.declared._PATIENCE", "10ms")
    upgraded.execute("CREATE TABLE tickets (id integer PRIMARY KEY)")
    metadata = declared(Policy("Mine", using="EXISTS (SELECT FROM profiles)"))
    with upgraded.connect(autocommit=False) as other, upgraded.engine().connect() as connection:
        other.execute("LOCK TABLE profiles")
        pid = other.info.backend_pid

        with pytest.raises(ComparisonError) as raised:
            compare(connection, metadata)

    assert str(raised.value) == (
        f"a lock could not be had within 10ms, since pid {pid} has profiles under ACCESS EXCLUSIVE; "
        "nothing was changed: run it again once that is done."
    )


def with_a_policy_that_calls(**function: str) -> MetaData:
    metadata = declared(Policy("Mine", using="id = desk.level(1)"))
    Schema("desk", metadata)
    Function("level", metadata, schema="desk", language="sql", body="SELECT 1", **function)  # type: ignore[arg-type]
    Function("application", metadata, returns="integer", language="sql", body="SELECT 1", if_missing=True)
    return metadata


LEVEL = {"arguments": "a integer", "returns": "integer"}


@pytest.mark.parametrize(
    "there",
    [
        "",
        "CREATE SCHEMA desk",
        "CREATE SCHEMA desk; CREATE FUNCTION desk.level(a integer) RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA desk; CREATE FUNCTION desk.level(b integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA desk; CREATE FUNCTION desk.level(numeric) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ],
    ids=["nothing", "its schema", "with another result", "with another argument", "as an overload"],
)
def test_a_check_in_the_middle_of_another_one_waits_for_no_function_that_is_missing(
    there: str, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflow_models.ddl.declared._PATIENCE", "10ms")
    empty.execute(there)
    metadata = with_a_policy_that_calls(**LEVEL)
    inner: list[list[str]] = []
    with empty.engine().connect() as other_check, empty.engine().connect() as check:

        @event.listens_for(other_check, "before_cursor_execute")
        def _(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            # Its functions are made by then, its clones are about to be.
            if statement.startswith("\nCREATE TABLE") and not inner:
                inner.append(list(map(str, compare(check, metadata))))

        outer = list(map(str, compare(other_check, metadata)))

    assert inner == [outer]
    assert any(difference.startswith("function desk.level") for difference in outer)


def test_it_waits_for_nobody_and_leaves_nothing_behind(upgraded: Database) -> None:
    count = "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_namespace)"
    before = upgraded.execute(count)
    with (
        upgraded.connect(autocommit=False) as writer,
        upgraded.engine().connect() as other_check,
        upgraded.engine().connect() as check,
    ):
        writer.execute(
            "INSERT INTO workflow_definitions (name, natural_language_prompt, workflow_json, trigger_type) "
            "VALUES ('w', 'do', '{}', 'manual')"
        )
        for table in ("workflow_definitions", "workflow_execution_logs", "organizations"):
            writer.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
        for connection in (other_check, check):
            connection.execute(text("SET LOCAL lock_timeout = '1ms'"))

        # The first keeps its transaction open, as one that runs at the same moment.
        assert compare(other_check, models) == []
        assert compare(check, models) == []

        held = check.execute(
            text(
                "SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' "
                "AND relation IN ('workflow_definitions'::regclass, 'workflow_execution_logs'::regclass)"
            )
        )
        assert set(held.scalars()) <= {"AccessShareLock"}
        writer.rollback()
        check.commit()
        other_check.commit()
    assert upgraded.execute(count) == before


def test_no_lock_above_access_share_is_ever_asked_for(upgraded: Database) -> None:
    """A writer that holds EXCLUSIVE conflicts with all other locks."""
    with upgraded.connect(autocommit=False) as writer, upgraded.engine().connect() as check:
        for table in ("workflow_definitions", "workflow_execution_logs", "organizations", "profiles"):
            writer.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
        check.execute(text("SET LOCAL lock_timeout = '1ms'"))

        assert compare(check, models) == []


def test_temporary_objects_of_the_session_do_not_disturb(upgraded: Database) -> None:
    with upgraded.engine().connect() as connection:
        connection.execute(text("CREATE TEMP TABLE notes (id integer)"))

        assert compare(connection, models) == []
        assert connection.scalar(text("SELECT to_regclass('pg_temp.notes') IS NOT NULL"))


def test_the_session_keeps_its_search_path(clone: Callable[[str], Database]) -> None:
    schema = f"s{uuid.uuid4().hex[:8]}"
    with clone("upgraded").engine().connect() as connection:
        connection.execute(text(f"SET search_path = public, {schema}"))
        compare(connection, models)

        assert connection.scalar(text("SHOW search_path")) == f"public, {schema}"
