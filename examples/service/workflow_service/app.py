"""The application: `uvicorn --factory workflow_service.app:create_app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypedDict

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from workflow_models.revisions import async_require_head
from workflow_models.tenancy import AsyncTenantSessionmaker

from workflow_service import executions, workflows
from workflow_service.errors import add_error_handlers
from workflow_service.settings import Settings
from workflow_service.worker import Job, work


class State(TypedDict):
    """What requests reach as `request.state`."""

    settings: Settings
    sessions: AsyncTenantSessionmaker
    jobs: asyncio.Queue[Job]


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        engine = create_async_engine(
            settings.database_url,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            # A request that is cancelled twice closes its connection, which PostgreSQL would notice only
            # when its statement ends.
            connect_args={"options": "-c client_connection_check_interval=1s"},
        )
        try:
            # Not started on a database that the models do not fit. It may be newer: upgrades come first.
            await async_require_head(engine, or_newer=True)
            sessions = AsyncTenantSessionmaker(engine, expire_on_commit=False)
            jobs: asyncio.Queue[Job] = asyncio.Queue()
            worker = asyncio.create_task(work(jobs, sessions))
            yield {"settings": settings, "sessions": sessions, "jobs": jobs}
            # A run that is under way is recorded as cancelled.
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker
        finally:
            await engine.dispose()

    app = FastAPI(title="Workflows", lifespan=lifespan)
    app.include_router(workflows.router)
    app.include_router(executions.router)
    add_error_handlers(app)
    return app
