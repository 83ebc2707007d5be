"""Fixtures for the tests of a service: a migrated database for each test, and sessions of tenants.

pytest loads this for every project of an environment. So it stands outside of the package, whose import
brings SQLAlchemy, and imports the rest only when a fixture is asked for.

A project overrides `workflow_server_url`, or `workflow_prepare_template`, in its own conftest.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from workflow_models.tenancy import AsyncTenantSessionmaker, TenantSessionmaker
    from workflow_models.testing import Database, Databases, Rows

ENVIRONMENT_VARIABLE = "WORKFLOW_TEST_DATABASE_URL"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("workflow-models").addoption(
        "--workflow-database-url",
        metavar="URL",
        help="a running PostgreSQL to make the databases of tests on, as superuser; "
        f"else {ENVIRONMENT_VARIABLE}, else the embedded server",
    )


@pytest.fixture(scope="session")
def workflow_server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The server to test on, by the URL of a superuser: to be overridden, for instance by the server of
    pytest-postgresql."""
    given = request.config.getoption("--workflow-database-url") or os.environ.get(ENVIRONMENT_VARIABLE)
    if given:
        yield given
        return
    with _errors_said_once():
        from workflow_models.testing import serve

        with serve() as url:
            yield url


@pytest.fixture(scope="session")
def workflow_prepare_template() -> Callable[[Database], None]:
    """What migrates and fills the template: to be overridden by a service that has more in its database than
    `upgrade head` of this package makes, which it then runs too."""

    def prepare(database: Database) -> None:
        from workflow_models import migrations

        migrations.upgrade(database.url)

    return prepare


@pytest.fixture(scope="session")
def workflow_databases(
    workflow_server_url: str, workflow_prepare_template: Callable[[Database], None]
) -> Iterator[Databases]:
    """The template; `with workflow_databases.clone() as database` gives more than one database to a test, or
    one to a module."""
    with _errors_said_once():
        from workflow_models.testing import Databases

        with Databases(workflow_server_url, workflow_prepare_template) as databases:
            yield databases


@pytest.fixture
def workflow_database(workflow_databases: Databases) -> Iterator[Database]:
    """A database of its own for this test."""
    with workflow_databases.clone() as database:
        yield database


@pytest.fixture
def workflow_engine(workflow_database: Database) -> Iterator[Engine]:
    """An engine of the service's login, which owns nothing and may become a user or a worker."""
    from sqlalchemy import create_engine

    engine = create_engine(workflow_database.service_url)
    yield engine
    engine.dispose()


@pytest.fixture
def workflow_async_engine(workflow_database: Database) -> AsyncEngine:
    """The same for asyncio; it keeps no connection, so that any event loop may use it."""
    from sqlalchemy import NullPool

    try:
        from sqlalchemy.ext.asyncio import create_async_engine
    except ImportError as error:
        _fail_without("asyncio", error)
    return create_async_engine(workflow_database.service_url, poolclass=NullPool)


@pytest.fixture
def workflow_owner_engine(workflow_database: Database) -> Engine:
    """An engine of the tables' owner, who sees and writes all rows: to arrange and to look again."""
    from sqlalchemy import NullPool, create_engine

    return create_engine(workflow_database.url, poolclass=NullPool)


@pytest.fixture
def workflow_sessions(workflow_engine: Engine) -> TenantSessionmaker:
    """Opens tenant sessions: `with workflow_sessions(user=…) as session`."""
    from workflow_models.tenancy import TenantSessionmaker

    return TenantSessionmaker(workflow_engine)


@pytest.fixture
def workflow_async_sessions(workflow_async_engine: AsyncEngine) -> AsyncTenantSessionmaker:
    """Opens tenant sessions for asyncio."""
    from workflow_models.tenancy import AsyncTenantSessionmaker

    return AsyncTenantSessionmaker(workflow_async_engine)


@pytest.fixture
def workflow_rows(workflow_owner_engine: Engine) -> Rows:
    """Makes organizations, users, workflows and runs."""
    from workflow_models.testing import Rows

    return Rows(workflow_owner_engine)


@contextmanager
def _errors_said_once() -> Iterator[None]:
    """Let what keeps the tests from their database be read without a traceback of ours."""
    try:
        from workflow_models.testing import TestingError
    except ImportError as error:
        _fail_without("pytest", error)
    try:
        yield
    except ImportError as error:
        _fail_without("pytest", error)
    except TestingError as error:
        pytest.fail(str(error), pytrace=False)


def _fail_without(extra: str, error: ImportError) -> NoReturn:
    pytest.fail(
        f'this fixture of workflow-models needs more: pip install "workflow-models[{extra}]". {error}',
        pytrace=False,
    )
