"""The proof that the package ships, on the databases of these tests."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tests.databases import OWNER, Database
from workflow_models import migrations
from workflow_models.base import metadata as models
from workflow_models.ddl import proof
from workflow_models.ddl.proof import Generated as Generated


class Proof(proof.Proof):
    """Migrates as one user, and observes as the superuser."""

    def __init__(
        self,
        database: Database,
        *,
        user: str | None = None,
        metadata: sa.MetaData | Sequence[sa.MetaData] = models,
        **options: Any,
    ) -> None:
        self.database = database
        self._engines = [
            sa.create_engine(database.url(each), pool_size=1, max_overflow=0)
            for each in (user or OWNER, database.superuser)
        ]
        migrating, observing = self._engines
        super().__init__(
            migrating,
            metadata,
            observer=observing,
            **{
                "version_table_schema": migrations.VERSION_TABLE_SCHEMA,
                "include_object": migrations.include_object,
                **options,
            },
        )

    def close(self) -> None:
        super().close()
        for engine in self._engines:
            engine.dispose()
