"""What a generated revision looks like to the one who reviews it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import (
    ARRAY,
    CHAR,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.types import TypeEngine

from tests.application.states import REVISIONS, at
from tests.databases import OWNER, Database
from tests.ddl.proof import Generated, Proof
from tests.ddl.test_from_nothing import STAND_INS
from workflow_models import migrations
from workflow_models.application import application_metadata as application
from workflow_models.base import metadata as models
from workflow_models.ddl import Function, Policy, RowSecurity, Schema


def generated(database: Database, prove: Callable[..., Proof], sql: str) -> tuple[Generated, Any]:
    """The revision for a change, and the summary that its docstring opens with."""
    database.execute(sql)
    known: dict[str, Any] = {}
    return prove(database, template_args=known).generate(), known["summary"]


def statements(source: str) -> str:
    return "\n".join(line[4:] for line in source.splitlines() if "# ###" not in line)


def test_a_drop_that_loses_data_is_left_to_people(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, _ = generated(upgraded, prove, "ALTER TABLE workflow_execution_logs ADD COLUMN note text")

    assert statements(revision.upgrade) == (
        "from alembic.util import CommandError\n"
        'raise CommandError("decide about column note of workflow_execution_logs: '
        'not in the models, and lost when dropped.")\n'
        "# op.drop_column('workflow_execution_logs', 'note')"
    )
    with pytest.raises(CommandError, match="decide about column note"):
        prove(upgraded).run(revision.upgrade)


def test_a_column_that_may_have_been_renamed_is_pointed_out(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, _ = generated(
        upgraded, prove, "ALTER TABLE workflow_execution_logs RENAME COLUMN error_details TO error"
    )

    assert (
        "decide about column error of workflow_execution_logs (or is it what error_details was called?)"
        in (revision.upgrade)
    )


@pytest.mark.parametrize("schema", [None, "desk"])
def test_a_table_that_may_have_been_renamed_is_pointed_out(
    schema: str | None, empty: Database, prove: Callable[..., Proof]
) -> None:
    empty.execute("CREATE SCHEMA desk")
    old, new = (MetaData(schema=schema) for _ in range(2))
    for name, metadata in (("tickets", old), ("issues", new)):
        Table(
            name, metadata, Column("id", Integer, primary_key=True), Column("title", Text, unique=True),
            Index("by_title", "title"), RowSecurity(), Policy("Old", "SELECT", using="id > 0"),
        )  # fmt: skip
    with empty.engine().begin() as connection:
        old.create_all(connection)
    options = {"include_schemas": True, "include_object": None, "version_table_schema": None}
    proof = prove(empty, metadata=new, **options)

    revision = proof.generate()

    renaming = f"op.rename_table('tickets', 'issues'{', schema=' + repr(schema) if schema else ''})"
    assert (
        "decide about table tickets (or is it what issues was called? "
        f"then let this revision do nothing but {renaming}): not in the models"
    ) in revision.upgrade
    # As it stands, and as it is advised.
    proof.of(revision.decided)
    proof.run(revision.downgrade)
    proof.run(renaming)
    assert not proof.generate().refuses


def test_a_new_table_is_open_to_nobody_whatever_its_schema_grants(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    empty.execute("""
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO PUBLIC
    """)
    metadata = MetaData()
    Table("tickets", metadata, Column("id", BigInteger, primary_key=True))
    proof = prove(empty, metadata=metadata, include_object=None, version_table_schema=None)

    proof.of(proof.generate())

    assert empty.execute("SELECT has_table_privilege('anon', 'tickets', 'SELECT')") == [(False,)]


def test_a_rewrite_of_a_table_is_announced(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, summary = generated(
        upgraded, prove, "ALTER TABLE workflow_execution_logs ALTER duration_ms TYPE bigint"
    )

    assert statements(revision.upgrade) == (
        "# ACCESS EXCLUSIVE on workflow_execution_logs while it may be rewritten: nobody reads it then.\n"
        'op.execute(\n    "ALTER TABLE workflow_execution_logs ALTER COLUMN duration_ms TYPE integer '
        'USING duration_ms::integer"\n)'
    )
    assert summary.changes == (
        "Changes: type duration_ms on workflow_execution_logs: value is 'bigint', declared 'integer'."
    )
    assert summary.locks == ("Locks: ACCESS EXCLUSIVE on workflow_execution_logs while it may be rewritten.")
    # For who uses a template that has no place for it.
    assert revision.upgrade.splitlines()[1:3] == [
        f"    # ### {summary.changes}",
        f"    # ### {summary.locks}",
    ]
    assert "Changes: " not in revision.downgrade


@pytest.mark.parametrize(
    ("found", "declared"),
    [
        ("integer", String(3)),
        ("uuid", CHAR(3)),
        ("text", String(3)),
        ("text[]", ARRAY(String(3))),
        ("bit(8)", BIT(3)),
    ],
    ids=str,
)
def test_no_value_is_cut_by_a_shorter_type(
    empty: Database, prove: Callable[..., Proof], found: str, declared: TypeEngine[Any]
) -> None:
    values = {"uuid": "gen_random_uuid()", "text[]": "ARRAY['12345']", "bit(8)": "B'10101010'"}
    empty.execute(
        f"CREATE TABLE tickets (note {found}); INSERT INTO tickets SELECT {values.get(found, '12345')}"
    )
    metadata = MetaData()
    Table("tickets", metadata, Column("note", declared))
    proof = prove(empty, metadata=metadata, include_object=None, version_table_schema=None)

    with pytest.raises(DBAPIError, match=r"too long|does not match type"):
        proof.run(proof.generate().upgrade)


def test_a_column_that_costs_a_rewrite_or_a_decision_says_so(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    empty.execute("CREATE TABLE tickets (id integer)")
    metadata = MetaData()
    Table(
        "tickets",
        metadata,
        Column("id", Integer),
        Column("key", Uuid, server_default=text("gen_random_uuid()")),
        Column("made", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        Column("title", Text, nullable=False),
    )
    known: dict[str, Any] = {}

    upgrade = prove(empty, metadata=metadata, template_args=known).generate().upgrade

    lines = [line.strip()[:60] for line in upgrade.splitlines()]
    assert [line for line in lines if "###" not in line] == [
        "# ACCESS EXCLUSIVE on tickets while it is rewritten: nobody reads it then."[:60],
        "op.add_column('tickets', sa.Column('key', sa.Uuid(), server_"[:60],
        "op.add_column('tickets', sa.Column('made', sa.DateTime(timez"[:60],
        "# title is NOT NULL without a default: this fails where tickets has rows."[:60],
        "op.add_column('tickets', sa.Column('title', sa.Text(), nulla"[:60],
    ]
    assert known["summary"].locks == (
        "Locks: ACCESS EXCLUSIVE on tickets while it is rewritten; "
        "ACCESS EXCLUSIVE on tickets for an instant."
    )


def test_an_index_is_built_outside_of_the_transaction(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, summary = generated(
        upgraded,
        prove,
        "DROP INDEX idx_workflow_execution_logs_organization_id; ALTER TABLE workflow_definitions "
        "DISABLE ROW LEVEL SECURITY",
    )

    before, found, inside = revision.upgrade.partition("with op.get_context().autocommit_block():")
    assert found
    assert "ENABLE ROW LEVEL SECURITY" in before
    assert (
        "CREATE INDEX CONCURRENTLY idx_workflow_execution_logs_organization_id ON workflow_execution_logs"
        in inside
    )
    assert "DROP INDEX CONCURRENTLY IF EXISTS idx_workflow_execution_logs_organization_id" in inside
    assert summary.changes == (
        "Adds: index idx_workflow_execution_logs_organization_id on workflow_execution_logs.\n"
        "Changes: row security on workflow_definitions: enabled is False, declared True."
    )


def test_what_is_unique_stays_so_while_its_index_changes(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    metadata = MetaData()
    Table(
        "tickets",
        metadata,
        Column("title", Text),
        Index("once", "title", unique=True, postgresql_where=text("title <> ''")),
    )
    upgraded.execute("CREATE TABLE tickets (title text); CREATE UNIQUE INDEX once ON tickets (title)")

    revision = prove(upgraded, metadata=metadata).generate()

    for source in (revision.upgrade, revision.downgrade):
        order = ["CREATE UNIQUE INDEX CONCURRENTLY once_next", 'IF EXISTS once"', "once_next RENAME TO once"]
        places = [source.index(step) for step in order]
        assert places == sorted(places)
        assert source.count("autocommit_block") == 1


@pytest.mark.parametrize("includes", [["title"], None], ids=["another", "none"])
def test_what_is_set_on_an_index_is_set_on_the_one_that_takes_its_place(
    includes: list[str] | None, empty: Database, prove: Callable[..., Proof]
) -> None:
    declared = [Index("once", "id", unique=True, postgresql_include=includes)] if includes else []
    metadata = MetaData()
    Table(
        "tickets",
        metadata,
        Column("id", Integer, nullable=False),
        Column("title", Text),
        *declared,
    )
    empty.execute(
        "CREATE TABLE tickets (id integer NOT NULL, title text); CREATE UNIQUE INDEX once ON tickets (id); "
        "ALTER TABLE tickets REPLICA IDENTITY USING INDEX once, CLUSTER ON once"
    )
    proof = prove(
        empty,
        metadata=metadata,
        allow_extra=["replica identity on tickets", "clustering on tickets"],
        version_table_schema=None,
    )

    revision = proof.generate()

    assert [title.partition(" ")[2] for title in revision.titles] == ["index once on tickets"]
    proof.of(revision)
    set_on = "SELECT indisreplident, indisclustered FROM pg_index WHERE indexrelid = to_regclass('once')"
    assert empty.execute(set_on) == [(True, True)] * len(declared)


def test_not_null_is_proven_before_it_is_set(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, _ = generated(upgraded, prove, "ALTER TABLE workflow_definitions ALTER name DROP NOT NULL")

    drop = 'DROP CONSTRAINT IF EXISTS name_not_null_proof"'
    order = ["NOT VALID", "VALIDATE CONSTRAINT", "SET NOT NULL", drop]
    places = [revision.upgrade.index(step) for step in order]
    assert places == sorted(places)


def test_a_not_null_that_rows_refute_leaves_writers_alone(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    insert = """
        INSERT INTO workflow_definitions (natural_language_prompt, workflow_json, trigger_type)
        VALUES ('Do', '{}', 'manual')
    """
    revision, _ = generated(upgraded, prove, "ALTER TABLE workflow_definitions ALTER name DROP NOT NULL")
    upgraded.execute(insert)

    with pytest.raises(IntegrityError, match="rows of workflow_definitions have no name"):
        prove(upgraded).run(revision.upgrade)

    upgraded.execute(insert)
    upgraded.execute("UPDATE workflow_definitions SET name = 'named'")
    prove(upgraded).of(revision)


def test_a_policy_is_replaced_in_one_transaction(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, summary = generated(
        upgraded,
        prove,
        'ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs USING (true); '
        "DROP INDEX idx_workflow_execution_logs_organization_id",
    )

    dropped, created = (
        revision.upgrade.index(f'{verb} "Users can view workflow logs"')
        for verb in ("DROP POLICY IF EXISTS", "CREATE POLICY")
    )
    assert dropped < created < revision.upgrade.index("autocommit_block")
    assert (
        "May widen access: policy Users can view workflow logs on workflow_execution_logs." in summary.changes
    )


def test_a_function_comes_before_the_policy_that_calls_it(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, _ = generated(upgraded, prove, "DROP FUNCTION workflow_private.worker_organization() CASCADE")

    assert revision.upgrade.index("CREATE OR REPLACE FUNCTION") < revision.upgrade.index("CREATE POLICY")
    assert revision.downgrade.index("DROP POLICY") < revision.downgrade.index("DROP FUNCTION")


@pytest.mark.parametrize(("earlier", "revision"), list(pairwise(REVISIONS)))
def test_a_revision_of_the_chain_goes_up_down_and_up_again_with_rows(
    earlier: str, revision: str, clone: Callable[[str], Database], prove: Callable[..., Proof]
) -> None:
    prove_step(prove, clone(at("empty", earlier)), earlier, revision)


def test_the_first_revision_of_the_chain_goes_up_down_and_up_again(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    empty.execute(STAND_INS + "INSERT INTO organizations (name) VALUES ('Acme')")
    first = REVISIONS[0]
    # Alembic keeps its version table once it was there.
    migrations.upgrade(empty.url(), first)
    migrations.downgrade(empty.url(), "base")

    prove_step(prove, empty, "base", first)


def prove_step(prove: Callable[..., Proof], database: Database, earlier: str, revision: str) -> None:
    prove(database, metadata=[models, application]).of_steps(
        lambda: migrations.upgrade(database.url(), revision),
        lambda: migrations.downgrade(database.url(), earlier, x={"allow-data-loss": "true"}),
        clean=False,
    )


def test_what_others_made_of_a_column_is_left_to_people(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    revision, _ = generated(
        upgraded,
        prove,
        "ALTER TABLE workflow_execution_logs ALTER duration_ms TYPE bigint; "
        "CREATE VIEW slow AS SELECT duration_ms FROM workflow_execution_logs",
    )

    with pytest.raises(CommandError) as raised:
        prove(upgraded).run(revision.upgrade)

    assert str(raised.value) == (
        "decide about what others made: view slow uses type duration_ms. PostgreSQL does not change under it "
        "what it uses: drop it here, and make it again at the end."
    )


def test_nothing_is_committed_while_a_policy_is_away(upgraded: Database, prove: Callable[..., Proof]) -> None:
    revision, _ = generated(
        upgraded,
        prove,
        'ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs USING (true); '
        "CREATE INDEX slow ON workflow_execution_logs (error_details); "
        "DROP INDEX idx_workflow_execution_logs_organization_id",
    )

    for source in (revision.upgrade, revision.downgrade):
        _, dropped, rest = source.partition("DROP POLICY IF EXISTS")
        away, made, _ = rest.partition("CREATE POLICY")
        assert dropped
        assert made
        assert "autocommit_block" not in away
        assert source.count("autocommit_block") == 2


@pytest.mark.parametrize(
    ("columns", "body"),
    [
        ([Column("level", BigInteger)], "RETURN (SELECT max(level) FROM tickets)"),
        ([], "RETURN (SELECT max(id) FROM tickets)"),
        ([], "SELECT 1"),
    ],
    ids=["of another type", "dropped", "dropped, and then nothing is used"],
)
def test_a_column_that_a_function_was_parsed_with_can_change(
    columns: list[Column[int]], body: str, empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata = MetaData()
    Schema("desk", metadata)
    Function("top", metadata, schema="desk", language="sql", returns="bigint", body=body)
    Table(
        "tickets",
        metadata,
        Column("id", Integer),
        *(Column(column.name, column.type) for column in columns),
        RowSecurity(),
        Policy("Top", "SELECT", using="id = desk.top()"),
    )
    empty.execute(
        """
        CREATE SCHEMA desk; CREATE TABLE tickets (id integer, level integer);
        ALTER TABLE tickets ENABLE ROW LEVEL SECURITY;
        CREATE FUNCTION desk.top() RETURNS bigint LANGUAGE sql RETURN (SELECT max(level) FROM tickets);
        REVOKE EXECUTE ON FUNCTION desk.top() FROM PUBLIC;
        CREATE POLICY "Top" ON tickets FOR SELECT USING (id = desk.top());
        """
    )
    proof = prove(empty, metadata=metadata, version_table_schema=None)

    proof.of(proof.generate().decided)


def test_a_setting_that_a_superuser_has_changed_by_then_is_passed_over(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    setting = f'ALTER DATABASE {upgraded.name} {{}} "request.jwt.claims"{{}}'
    upgraded.execute(setting.format("SET", "= 'x'"), user=upgraded.superuser)
    proof = prove(upgraded)
    revision = proof.generate()

    assert "# Needs a superuser, or SET ON PARAMETER request.jwt.claims;" in revision.upgrade
    with pytest.raises(ProgrammingError, match="permission denied to set parameter"):
        proof.run(revision.upgrade)

    upgraded.execute(setting.format("RESET", ""), user=upgraded.superuser)
    proof.run(revision.upgrade)
    upgraded.execute(setting.format("SET", "= 'x'"), user=upgraded.superuser)
    proof.run(revision.downgrade)


def test_a_key_that_was_not_enforced_stays_enforced_where_its_owner_downgrades(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    upgraded.execute("ALTER TABLE workflow_definitions DISABLE TRIGGER ALL", user=upgraded.superuser)
    proof = prove(upgraded)
    revision = proof.generate()
    proof.run(revision.upgrade)

    proof.run(revision.downgrade)

    assert "# Its triggers are a superuser's to disable; for anybody else they stay" in revision.downgrade
    not_as_usual = """
        SELECT conname::text FROM pg_constraint WHERE NOT convalidated UNION ALL
        SELECT tgname::text FROM pg_trigger WHERE tgisinternal AND tgenabled <> 'O'
    """
    assert upgraded.execute(not_as_usual) == []


def test_odd_names_and_texts_come_back_as_they_were(upgraded: Database, prove: Callable[..., Proof]) -> None:
    upgraded.execute(
        r"""
        CREATE POLICY "x :a:b \:c 100%" ON workflow_definitions FOR SELECT USING (name = ':a:b %s');
        ALTER TABLE workflow_definitions ADD CONSTRAINT odd CHECK (name !~ '[:alpha:]9\:x$');
        COMMENT ON COLUMN workflow_definitions.name IS ':a:b \:c %(d)s';
        CREATE INDEX "a ON b" ON workflow_definitions (name);
        """
    )
    proof = prove(upgraded)

    proof.of(proof.generate().decided)


def test_a_dropped_table_of_a_declared_schema_is_reported_once(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata = MetaData()
    Schema("shop", metadata)
    empty.execute("CREATE SCHEMA shop; CREATE TABLE shop.coupons (id serial PRIMARY KEY)")
    proof = prove(
        empty, metadata=metadata, version_table_schema=None, include_schemas=True, include_object=None
    )

    revision = proof.generate()

    assert revision.changes == ("table coupons: found, not declared",)
    assert revision.upgrade.count("raise CommandError") == 1
    proof.of(revision.decided)


INHERITED = """
SELECT attrelid::regclass::text, attname::text AS name, attislocal, attinhcount FROM pg_attribute
WHERE attrelid IN (SELECT inhrelid FROM pg_inherits) AND attnum > 0
UNION ALL
SELECT conrelid::regclass::text, conname::text, conislocal, coninhcount FROM pg_constraint
WHERE conrelid IN (SELECT inhrelid FROM pg_inherits)
ORDER BY 1, 2
"""


def test_a_dropped_child_of_a_table_comes_back_with_what_is_its_own(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata = MetaData()
    Table("tickets", metadata, Column("id", Integer, primary_key=True), CheckConstraint("id > 0", name="few"))
    with empty.engine().begin() as connection:
        metadata.create_all(connection)
    empty.execute(
        """
        CREATE TABLE a_parent (level integer NOT NULL DEFAULT 3, note text, CONSTRAINT low CHECK (level > 2));
        CREATE TABLE "Old" (level integer, CONSTRAINT few CHECK (id > 0), own text CHECK (own <> ''))
        INHERITS (tickets, a_parent);
        ALTER TABLE "Old" ALTER id DROP DEFAULT, ALTER note SET DEFAULT 'none', ALTER note SET NOT NULL,
            ALTER note SET STATISTICS 7;
        CREATE TABLE a_child () INHERITS (a_parent);
        """
    )
    before = empty.execute(INHERITED)
    proof = prove(empty, metadata=metadata, version_table_schema=None, include_object=None)

    revision = proof.generate().decided
    proof.of(revision)
    proof.run(revision.downgrade)

    assert empty.execute(INHERITED) == before


def test_statistics_in_another_schema_than_their_table_are_dropped_there(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    upgraded.execute(
        """
        CREATE SCHEMA "Stats";
        CREATE STATISTICS "Stats".of_status ON workflow_id, status FROM workflow_execution_logs;
        ALTER STATISTICS "Stats".of_status SET STATISTICS 10;
        """
    )
    proof = prove(upgraded)

    revision = proof.generate()

    assert revision.changes == (
        'statistics "Stats".of_status on workflow_execution_logs: found, not declared',
    )
    proof.of(revision)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (
            "CREATE TABLE tickets (id integer PRIMARY KEY) PARTITION BY RANGE (id)",
            "table partitioned by RANGE (id)",
        ),
        ("CREATE VIEW tickets AS SELECT 1 AS id", "view"),
        ("CREATE MATERIALIZED VIEW tickets AS SELECT 1 AS id", "materialized view"),
        (
            """
            CREATE FOREIGN DATA WRAPPER far;
            CREATE SERVER there FOREIGN DATA WRAPPER far;
            CREATE FOREIGN TABLE tickets (id integer) SERVER there;
            ALTER FOREIGN TABLE tickets OWNER TO app_owner;
            """,
            "foreign table",
        ),
    ],
    ids=["partitioned table", "view", "materialized view", "foreign table"],
)
def test_what_is_no_table_stops_the_revision(
    made: str, kind: str, empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata = MetaData()
    Table(
        "tickets",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("title", Text, index=True),
        RowSecurity(),
    )
    empty.execute(made, user=empty.superuser if "FOREIGN" in made else OWNER)

    revision = prove(empty, metadata=metadata, version_table_schema=None, include_object=None).generate()

    assert revision.changes == (f"relation kind on tickets: value is '{kind}', declared 'table'",)
    assert statements(revision.upgrade) == (
        "from alembic.util import CommandError\n"
        f'raise CommandError("decide about tickets, a {kind} in the database '
        'and a table in the models: nothing turns one into the other.")'
    )


def test_a_revision_that_rows_refuted_runs_again_once_they_are_repaired(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    empty.execute('CREATE TABLE "t t" (id integer, n integer); INSERT INTO "t t" VALUES (1, NULL), (-1, 1)')
    metadata = MetaData()
    Table(
        "t t",
        metadata,
        Column("id", Integer),
        Column("n", Integer, nullable=False),
        CheckConstraint("id > 0", name="p"),
    )
    proof = prove(empty, metadata=metadata, version_table_schema=None)
    upgrade = proof.generate().upgrade

    for repair in ('UPDATE "t t" SET n = 0 WHERE id = 1', 'DELETE FROM "t t" WHERE id < 0'):
        with pytest.raises(IntegrityError):
            proof.run(upgrade)
        empty.execute(repair)
    proof.run(upgrade)

    assert proof.generate().changes == ()


def test_a_new_function_that_everybody_may_call_may_widen_access(
    empty: Database, prove: Callable[..., Proof]
) -> None:
    metadata, known = MetaData(), dict[str, Any]()
    Function("f", metadata, returns="integer", language="sql", body="SELECT 1", execute="PUBLIC")

    prove(empty, metadata=metadata, version_table_schema=None, template_args=known).generate()

    assert known["summary"].changes == (
        "Adds: function public.f().\nMay widen access: grant PUBLIC: EXECUTE on public.f()."
    )


def test_what_belonged_to_somebody_else_is_his_again(empty: Database, prove: Callable[..., Proof]) -> None:
    metadata = MetaData()
    Schema("desk", metadata)
    Table("t", metadata, Column("id", Integer), Column("n", Integer), schema="desk")
    with empty.engine().begin() as connection:
        metadata.create_all(connection)
    empty.execute(
        """
        CREATE FUNCTION desk.extra() RETURNS integer LANGUAGE sql AS 'SELECT 1';
        CREATE STATISTICS desk.extra ON id, n FROM desk.t;
        ALTER FUNCTION desk.extra() OWNER TO anon; ALTER STATISTICS desk.extra OWNER TO anon;
        """,
        user=empty.superuser,
    )
    options = {"metadata": metadata, "version_table_schema": None, "include_schemas": True}

    proof = prove(empty, user=empty.superuser, **options)
    generated = proof.generate()
    proof.of(generated)
    proof.run(generated.downgrade)

    # Where he may not give it away, it is his who migrates.
    others = prove(empty, **options)
    generated = others.generate()
    others.run(generated.upgrade)
    others.run(generated.downgrade)
    assert generated.downgrade.count("# It gets its owner back") == 2
