"""The proof that the package ships, on the databases of these tests."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from psycopg._preparing import PrepareManager
from psycopg.errors import InsufficientPrivilege

from tests.databases import OWNER, Database
from workflow_models import migrations
from workflow_models.base import metadata as models
from workflow_models.ddl import proof
from workflow_models.ddl.proof import Generated as Generated


class _Prepared(PrepareManager):
    """psycopg forgets what it has prepared with each ROLLBACK, ALTER or DROP; catalogs stay as they are."""

    prepare_threshold = 1
    prepared_max = 1_000

    def clear(self) -> bool:
        return False


def stay_prepared(connection: Any, _record: object = None) -> None:
    """Let what a connection reads of the catalogs be planned once."""
    connection._prepared = _Prepared()
    connection.execute("SET plan_cache_mode = force_generic_plan")
    connection.commit()
    # With a schema of temporary objects that comes and goes all would be planned again.
    with suppress(InsufficientPrivilege):
        connection.execute("CREATE TEMPORARY TABLE t (); DROP TABLE t")
    connection.commit()


class Proof(proof.Proof):
    """Migrates as one user, and observes as the superuser.

    The connections stay for the next proof on that database.
    """

    def __init__(
        self,
        database: Database,
        *,
        user: str = OWNER,
        metadata: sa.MetaData | Sequence[sa.MetaData] = models,
        **options: Any,
    ) -> None:
        self.database = database
        super().__init__(
            _engine(database, "migrates", user),
            metadata,
            observer=_engine(database, "observes", database.superuser),
            **{
                "version_table_schema": migrations.VERSION_TABLE_SCHEMA,
                "include_object": migrations.include_object,
                **options,
            },
        )


def _engine(database: Database, purpose: str, user: str) -> sa.Engine:
    if (purpose, user) not in database.engines:
        engine = database.engines[purpose, user] = sa.create_engine(database.url(user))
        sa.event.listen(engine, "connect", stay_prepared)
    return database.engines[purpose, user]
