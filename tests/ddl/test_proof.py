"""The proof that services' tests use finds a revision that does not do what it should."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, NullPool, Table, Text, create_engine

from tests.databases import Templates
from workflow_models.ddl import Policy, RowSecurity
from workflow_models.ddl.proof import Proof, ProofError, clone

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
