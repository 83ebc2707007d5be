"""One upgraded database with rows in it, shared by tests that leave it as they found it."""

# SQL reads better in its own lines.
# ruff: noqa: E501

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import Connection

from tests import catalog
from tests.databases import Database, Templates
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
        self._proofs: dict[str | None, Proof] = {}
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

    def proof(self, user: str | None = None) -> Proof:
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
