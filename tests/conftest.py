"""Fixtures: one server a session, and databases in named states.

`empty` and `upgraded` are such databases; `clone(name)` gives any other that is registered as a template.
"""

import gc
import os
from collections.abc import Callable, Iterator

import pytest
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

import tests.application.states  # noqa: F401 (registers its templates)
from tests import server as servers
from tests.databases import Database, Templates, template
from workflow_models import migrations


def pytest_report_header() -> str:
    try:
        return f"server: {servers.choose()[0]}"
    except servers.NoServerError as error:
        raise pytest.UsageError(str(error)) from error


# The longest first, so that at the end no worker waits for another one; from `--durations=0`.
LONG = (
    "tests/ddl/test_hand_changes.py",
    "tests/revisions/test_states.py",
    "tests/ddl/test_model_changes.py",
    "tests/test_tenancy_random.py",
    "tests/test_beside.py",
    "tests/test_bad_input.py",
    "tests/online/test_kills.py",
    "tests/test_pytest_plugin.py",
    "tests/online/test_pooler.py",
    "tests/ddl/test_revision.py",
    "tests/revisions/test_each_revision.py",
    "tests/test_cli.py",
    "tests/test_docs.py",
    "tests/test_export.py",
    "tests/test_embedded.py",
    "tests/online/test_directives.py",
    "tests/test_integrity.py",
    "tests/test_bench.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {module: place for place, module in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def pytest_collection_finish() -> None:
    # What is imported by now stays, and tests leave little behind: the collector need not come so often.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def server() -> Iterator[servers.Server]:
    with servers.serve() as server:
        servers.make_roles(server)
        yield server


postgresql_noproc = factories.postgresql_noproc(depends_on="server", dbname=f"wm{os.getpid()}")


@pytest.fixture(scope="session")
def workflow_server_url(postgresql_noproc: NoopExecutor) -> str:
    """Our own plugin, which some tests use as a service does, makes its databases on the same server."""
    return Database(postgresql_noproc.maintenance_dbname, postgresql_noproc).url(postgresql_noproc.user)


@pytest.fixture(scope="session")
def templates(postgresql_noproc: NoopExecutor) -> Iterator[Templates]:
    templates = Templates(postgresql_noproc, postgresql_noproc.template_dbname)
    yield templates
    templates.close()


@pytest.fixture
def clone(templates: Templates) -> Iterator[Callable[[str], Database]]:
    """Gives a database in the state of that name, its own for this test."""
    made: list[Database] = []

    def clone(name: str) -> Database:
        made.append(templates.clone(name))
        return made[-1]

    yield clone
    for database in made:
        templates.drop(database)


@pytest.fixture
def empty(clone: Callable[[str], Database]) -> Database:
    """Nothing in it, not even the application's tables."""
    return clone("empty")


@pytest.fixture
def upgraded(clone: Callable[[str], Database]) -> Database:
    """An empty database after `upgrade head`, stand-ins included."""
    return clone("upgraded")


@pytest.fixture
def empty_on_new_cluster() -> Iterator[Database]:
    """Empty, on a server of its own with no role but the owner's: for tests about roles that are missing."""
    _, binaries = servers.choose()
    if binaries is None:
        pytest.skip("needs a cluster of its own, not a running server")
    with servers.cluster(binaries) as server:
        servers.make_roles(server, ["app_owner"])
        executor = NoopExecutor(server.host, server.port, server.user, server.options, "new")
        templates = Templates(executor, "template1")
        database = templates.clone("empty")
        yield database
        templates.drop(database)
        templates.close()


@template("upgraded")
def upgrade(database: Database) -> None:
    migrations.upgrade(database.url())
