"""The service, running, on a database of its own for each test; and two tenants in it."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import jwt
import pytest
import uvicorn
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from workflow_models import ExecutionStatus, WorkflowDefinition, WorkflowExecutionLog, migrations
from workflow_models.testing import Database, Rows

from workflow_service.app import create_app
from workflow_service.settings import Settings

ROOT = Path(__file__).parents[1]
SECRET = "of these tests, " * 4  # 64 bytes, as HS512 wants


def service_config() -> Config:
    """This service's own Alembic."""
    return Config(ROOT / "alembic.ini")


@pytest.fixture(scope="session")
def workflow_prepare_template() -> Callable[[Database], None]:
    def prepare(database: Database) -> None:
        migrations.upgrade(database.url)
        with database_url(database.url):
            command.upgrade(service_config(), "head")

    return prepare


@contextlib.contextmanager
def database_url(url: str) -> Iterator[None]:
    """The database that this service's Alembic finds in its environment."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", url)
        yield


@dataclass(frozen=True)
class Tenant:
    """An organization with an admin, a workflow and two runs of it, one of which failed."""

    organization: UUID
    admin: UUID
    workflow: WorkflowDefinition
    succeeded: WorkflowExecutionLog
    failed: WorkflowExecutionLog

    @property
    def texts(self) -> list[str]:
        """What no answer to another tenant may hold."""
        return [
            *map(str, (self.organization, self.admin, self.workflow.id)),
            self.workflow.name,
            str(self.failed.error_details),
        ]


def tenant(rows: Rows, name: str) -> Tenant:
    organization = rows.organization(name)
    steps = {"steps": [{"action": "greet"}]}
    workflow = rows.definition(organization, name=f"Workflow of {name}", workflow_json=steps)
    return Tenant(
        organization,
        rows.user(organization, "admin"),
        workflow,
        rows.execution(workflow, status=ExecutionStatus.SUCCESS),
        rows.execution(workflow, status=ExecutionStatus.ERROR, error_details=f"Failure of {name}"),
    )


@pytest.fixture
def acme(workflow_rows: Rows) -> Tenant:
    return tenant(workflow_rows, "Acme")


@pytest.fixture
def globex(workflow_rows: Rows) -> Tenant:
    return tenant(workflow_rows, "Globex")


def token(user: UUID | str, key: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode({"sub": str(user), "exp": time.time() + 600}, key, algorithm)


class Service:
    """The running service, and clients of it."""

    def __init__(self, app: FastAPI, url: str) -> None:
        self.app = app
        self.url = url

    def client(self, user: UUID | None = None) -> httpx.Client:
        """A client that sends the user's token, or none."""
        headers = {"Authorization": f"Bearer {token(user)}"} if user else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """The service in a thread, behind a real socket."""
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=10))
    # It listens from here on: a request waits until the service has started.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Service(app, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def service(workflow_database: Database) -> Iterator[Service]:
    """On one connection, so that every request is given that of the one before."""
    with running(Settings(workflow_database.service_url, SECRET, pool_size=1)) as service:
        yield service


@pytest.fixture
def as_acme(service: Service, acme: Tenant) -> Iterator[httpx.Client]:
    with service.client(acme.admin) as client:
        yield client


@pytest.fixture
def as_globex(service: Service, globex: Tenant) -> Iterator[httpx.Client]:
    with service.client(globex.admin) as client:
        yield client
