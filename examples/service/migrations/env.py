"""Alembic's template for asyncio, with what this service's database needs."""

import asyncio
import os
from typing import Any

from alembic import context
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from workflow_models.migrations import service_include_name, service_include_object

from workflow_service.models import Base

OPTIONS: dict[str, Any] = {
    "target_metadata": Base.metadata,
    # The application, or another service, may have an alembic_version in this schema.
    "version_table": "workflow_service_version",
    # What is not this service's is none of its business: the tables of workflow-models ...
    "include_name": service_include_name,
    "include_object": service_include_object,
    # ... while row-level security, policies and grants of its own table are compared too.
    "autogenerate_plugins": ["alembic.autogenerate.*", "workflow_models.ddl"],
}


def run_migrations_offline() -> None:
    context.configure(
        url=os.environ["DATABASE_URL"],
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        **OPTIONS,
    )

    with context.begin_transaction():
        context.run_migrations()


def do_run_migrations(connection: Connection) -> None:
    context.configure(connection=connection, **OPTIONS)

    with context.begin_transaction():
        context.run_migrations()


async def run_async_migrations() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"], poolclass=NullPool)

    async with engine.connect() as connection:
        await connection.run_sync(do_run_migrations)

    await engine.dispose()


if context.is_offline_mode():
    run_migrations_offline()
else:
    asyncio.run(run_async_migrations())
