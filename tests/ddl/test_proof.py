"""The proof that services' tests use finds a revision that does not do what it should."""

from collections.abc import Iterator
from typing import Literal

import pytest
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Column, Engine, Integer, MetaData, NullPool, Table, Text, create_engine, text
from sqlalchemy.types import UserDefinedType

from tests.databases import OWNER, Templates
from workflow_models.ddl import Policy, RowSecurity
from workflow_models.ddl.proof import Generated, Proof, ProofError, clone

desk = MetaData()
Table(
    "tickets",
    desk,
    Column("id", Integer, primary_key=True),
    Column("state", Text),
    RowSecurity(),
    Policy("Open", "SELECT", using="state = 'open'"),
)
CREATE = 'op.execute("CREATE POLICY \\"Open\\" ON tickets FOR SELECT USING (state = \'open\')")'
DROP = 'op.execute("DROP POLICY IF EXISTS \\"Open\\" ON tickets")'


@pytest.fixture(scope="module")
def url(templates: Templates) -> Iterator[str]:
    """A database in which the policy is missing."""
    database = templates.clone("empty")
    with database.engine().begin() as connection:
        desk.create_all(connection)
        connection.exec_driver_sql('DROP POLICY "Open" ON tickets; INSERT INTO tickets VALUES (1), (2)')
    yield database.url(database.superuser)
    templates.drop(database)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    with clone(url, name="proven") as copy:
        yield create_engine(copy, poolclass=NullPool)


def test_a_generated_revision_is_proven_on_a_clone(engine: Engine) -> None:
    with Proof(engine, desk) as proof:
        proof.of(proof.generate())

        assert proof.generate().changes == ()


class Level(UserDefinedType[str]):
    """A type that the models alone know."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "integer"


def test_the_owner_sees_all_rows_also_while_row_security_is_forced(url: str) -> None:
    forced = 'op.execute("ALTER TABLE tickets {} ROW LEVEL SECURITY")'
    up, down = f"{forced.format('FORCE')}; {CREATE}", f"{DROP}; {forced.format('NO FORCE')}"
    with (
        clone(url, name="proven") as copy,
        Proof(create_engine(copy.set(username=OWNER), poolclass=NullPool), desk) as proof,
    ):
        proof.of_steps(up, down, clean=False)
        proof.run(down)

        with pytest.raises(ProofError, match=r"^the downgrade loses 2 rows of tickets"):
            proof.of_steps(up, f'op.execute("TRUNCATE tickets"); {down}', clean=False)


def test_an_observer_who_does_not_see_all_rows_is_told_so(engine: Engine) -> None:
    others = create_engine(engine.url.set(username="authenticator"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON tickets TO authenticator"))

    with Proof(engine, desk, observer=others) as proof, pytest.raises(ProofError) as raised:
        proof.rows()

    assert str(raised.value) == (
        "authenticator may not see all rows: query would be affected by row-level security policy for table "
        '"tickets". Give Proof() an observer= that does: '
        "the tables' owner, a superuser, a role with BYPASSRLS."
    )


def test_types_are_written_as_the_options_say(engine: Engine) -> None:
    metadata = MetaData()
    desk.tables["tickets"].to_metadata(metadata).append_column(Column("level", Level))

    def render_item(type_: str, item: object, context: AutogenContext) -> str | Literal[False]:
        if type_ != "type" or not isinstance(item, Level):
            return False
        context.imports.add("from sqlalchemy import Integer as Whole")
        return "Whole()"

    with Proof(engine, metadata, render_item=render_item) as proof:
        generated = proof.generate()
        proof.of(generated)

    assert "sa.Column('level', Whole()" in generated.upgrade


def test_a_copy_has_the_owner_of_the_original(engine: Engine, url: str) -> None:
    owner = text("SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()")
    with engine.connect() as copy, create_engine(url, poolclass=NullPool).connect() as original:
        assert copy.scalar(owner) == original.scalar(owner) != original.scalar(text("SELECT current_user"))


def test_a_revision_that_only_stops_does_nothing_once_that_is_decided(engine: Engine) -> None:
    stops = (
        "    # ### begin\n    from alembic.util import CommandError\n"
        '    raise CommandError("decide")\n    # ### end'
    )
    decided = Generated((), (), stops, "    pass").decided

    with Proof(engine, desk) as proof:
        before = proof.snapshot()
        proof.run(decided.upgrade)

        assert proof.snapshot() == before


REFUTED = {
    "differs from the models": (
        "pass",
        "pass",
        (
            "after the upgrade the database differs from the models:\n"
            "  policy Open on tickets: declared, not found"
        ),
    ),
    "leaves something": (
        CREATE,
        "pass",
        (
            "the downgrade does not restore\n  policy public.tickets.Open: r; t; PUBLIC; "
            "USING (state = 'open'::text); it was not there"
        ),
    ),
    "loses rows on the way up": (
        f'op.execute("DELETE FROM tickets WHERE id = 2"); {CREATE}',
        DROP,
        "the upgrade loses 1 rows of tickets: (2)",
    ),
    "loses rows on the way down": (
        CREATE,
        f'{DROP}; op.execute("TRUNCATE tickets")',
        "the downgrade loses 2 rows of tickets: (1), (2)",
    ),
}


@pytest.mark.parametrize(("up", "down", "message"), REFUTED.values(), ids=REFUTED.keys())
def test_a_wrong_revision_is_refuted(engine: Engine, up: str, down: str, message: str) -> None:
    with Proof(engine, desk) as proof, pytest.raises(ProofError) as raised:
        proof.of_steps(up, down)

    assert str(raised.value) == message
