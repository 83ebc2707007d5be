"""One upgraded database with rows in it, shared by tests that leave it as they found it."""

# SQL reads better in its own lines.
# ruff: noqa: E501

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from psycopg import Connection, DatabaseError

from tests import catalog
from tests.databases import OWNER, Database, Templates
from tests.ddl.proof import Proof, stay_prepared

ROWS = """
INSERT INTO organizations (id, name) SELECT md5('o' || n)::uuid, 'Organization ' || n FROM generate_series(1, 2) AS n;
INSERT INTO profiles (id, organization_id) SELECT id, id FROM organizations;
INSERT INTO workflow_definitions (id, organization_id, name, natural_language_prompt, workflow_json, trigger_type)
SELECT md5('w' || n)::uuid, CASE WHEN n < 3 THEN md5('o' || n)::uuid END, 'Workflow ' || n, 'do', '{}', 'manual'
FROM generate_series(1, 3) AS n;
INSERT INTO workflow_execution_logs (workflow_id, status, duration_ms, error_details)
SELECT md5('w' || (1 + n % 3))::uuid, 'success', n, 'none' FROM generate_series(1, 30) AS n;
"""


class Shared:
    """A database that a test borrows; one that was not given back as it was is replaced."""

    def __init__(self, templates: Templates, state: str) -> None:
        self._templates = templates
        self._state = state
        self._database: Database | None = None
        self._proofs: dict[str, Proof] = {}
        self._connections: dict[str, Connection[Any]] = {}
        self.clean = True

    def borrow(self) -> Database:
        if self._database is None or not self.clean:
            self.close()
            self._database = self._templates.clone(self._state)
            self._database.execute(ROWS)
            self.pristine = self.now()
            assert self.proof().generate().changes == ()
        self.clean = False
        return self._database

    def now(self) -> catalog.Snapshot:
        """What is ours in it; `pristine` is what there was when it was new."""
        assert self._database is not None
        return catalog.snapshot(self.connection(self._database.superuser))

    def connection(self, user: str) -> Connection[Any]:
        """One as that user, which stays open."""
        assert self._database is not None
        if user not in self._connections:
            self._connections[user] = self._database.connect(user)
            stay_prepared(self._connections[user])
        return self._connections[user]

    def proof(self, user: str = OWNER) -> Proof:
        """What has a connection of its own as that user."""
        assert self._database is not None
        if user not in self._proofs:
            self._proofs[user] = Proof(self._database, user=user)
        return self._proofs[user]

    def close(self) -> None:
        while self._proofs:
            self._proofs.popitem()[1].close()
        while self._connections:
            self._connections.popitem()[1].close()
        if self._database is not None:
            self._templates.drop(self._database)
            self._database = None


@pytest.fixture(scope="module")
def shared(templates: Templates) -> Iterator[Shared]:
    shared = Shared(templates, "upgraded")
    yield shared
    shared.close()


# Whatever has been made in a database, or is set for it; schemas of temporary objects stay.
MADE = """
SELECT 'public', n::text FROM pg_namespace AS n WHERE nspname = 'public'
UNION ALL SELECT 'database', d::text FROM pg_database AS d WHERE datname = current_database()
UNION ALL SELECT 'setting', s::text FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = setdatabase
    WHERE datname = current_database()
UNION ALL SELECT 'role', s::text FROM pg_shdepend AS s JOIN pg_database AS d ON d.oid = dbid
    WHERE datname = current_database()
"""
CATALOGS = """
SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'oid'
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
"""
OF_CATALOG = """
UNION ALL SELECT '{0}', c::text FROM {0} AS c
    WHERE oid >= 16384 AND NOT ('{0}' = 'pg_namespace' AND c::text ~ ',pg_(toast_)?temp_')
"""


class Emptied:
    """A database that is emptied after each test; one in which something stays is replaced."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._new()

    def _new(self) -> None:
        self.database = self._templates.clone("empty")
        self._connection = self.database.connect(self.database.superuser)
        self._connection.execute("SET lock_timeout = '1s'")
        catalogs = self._connection.execute(CATALOGS).fetchall()
        self._made = MADE + "".join(OF_CATALOG.format(name) for (name,) in catalogs)
        self._pristine = self._now()

    def _now(self) -> list[Any]:
        return sorted(self._connection.execute(self._made.encode()).fetchall())

    def empty(self) -> None:
        with suppress(DatabaseError):
            self._connection.execute(f"DROP OWNED BY {OWNER} CASCADE")
        if self._now() != self._pristine:
            self.close()
            self._new()

    def close(self) -> None:
        self._connection.close()
        self._templates.drop(self.database)


@pytest.fixture(scope="module")
def emptied(templates: Templates) -> Iterator[Emptied]:
    emptied = Emptied(templates)
    yield emptied
    emptied.close()


@pytest.fixture
def empty(emptied: Emptied) -> Iterator[Database]:
    """As everywhere; the next test gets the same one, and what connections there are know the catalogs."""
    yield emptied.database
    emptied.empty()


@pytest.fixture
def prove() -> Iterator[Callable[..., Proof]]:
    """Makes a `Proof` for this test."""
    made: list[Proof] = []

    def prove(*arguments: Any, **options: Any) -> Proof:
        made.append(Proof(*arguments, **options))
        return made[-1]

    yield prove
    for proof in made:
        proof.close()
