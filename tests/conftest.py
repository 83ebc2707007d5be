"""Fixtures: the servers of a session, and databases in named states.

`empty` and `upgraded` are such databases; `clone(name)` gives any other that is registered as a template.
"""

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

import tests.application.states  # noqa: F401 (registers its templates)
from tests import server as servers
from tests.databases import Database, Templates, template
from workflow_models import migrations


def pytest_configure() -> None:
    # Nobody waits for a single answer: a server and its client, which take turns, are interrupted less.
    if sys.platform == "linux":
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        servers.chosen()
    except servers.NoServerError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header() -> list[str]:
    return [f"server: {choice}" for choice in servers.chosen()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choices = servers.chosen()
    if "choice" in metafunc.fixturenames and len(choices) > 1:
        kinds = [choice.kind for choice in choices]
        metafunc.parametrize("choice", choices, indirect=True, ids=kinds, scope="session")


# The longest first, so that at the end no worker waits for another one; from `--durations=0`. What is not
# here takes some seconds at most.
LONG = (
    "tests/revisions/test_states.py",
    "tests/test_bad_input.py",
    "tests/test_tenancy_random.py",
    "tests/ddl/test_model_changes.py",
    "tests/test_beside.py",
    "tests/online/test_kills.py",
    "tests/ddl/test_hand_changes.py",
    "tests/online/test_pooler.py",
    "tests/revisions/test_each_revision.py",
    "tests/ddl/test_revision.py",
    "tests/test_daily_work.py",
    "tests/test_embedded.py",
    "tests/test_cli.py",
    "tests/online/test_locks.py",
    "tests/test_export.py",
    "tests/test_integrity.py",
    "tests/test_pytest_plugin.py",
    "tests/ddl/test_options.py",
    "tests/test_docs.py",
    "tests/online/test_directives.py",
    "tests/online/test_run.py",
    "tests/test_tenancy.py",
    "tests/test_story.py",
    "tests/test_executions.py",
    "tests/ddl/test_foreign_changes.py",
    "tests/test_kit.py",
    "tests/test_maintenance.py",
    "tests/test_supabase.py",
    "tests/test_bench.py",
    "tests/online/test_plan.py",
    "tests/ddl/test_properties.py",
    "tests/ddl/test_bad_input.py",
    "tests/online/test_script.py",
    "tests/test_models.py",
    "tests/ddl/test_proof.py",
    "tests/online/test_migrators.py",
    "tests/test_extras.py",
    "tests/test_policies.py",
    "tests/test_isolation.py",
    "tests/ddl/test_from_nothing.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {module: place for place, module in enumerate(LONG)}

    def key(item: pytest.Item) -> tuple[int, int]:
        callspec = getattr(item, "callspec", None)
        choice = callspec.params.get("choice") if callspec else None
        server = servers.chosen().index(choice) if choice else 0
        return server, places.get(item.nodeid.partition("::")[0], len(places))

    # Each process goes over to the next server once.
    items.sort(key=key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadscope":
        return None
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _module_and_server
    return scheduling


def _module_and_server(nodeid: str) -> str:
    """What one process runs together: a module's tests of one server."""
    function, _, parameters = nodeid.partition("[")
    kinds = "|".join(choice.kind for choice in servers.chosen())
    of_server = re.search(rf"(?:^|-)({kinds})(?=-|\]$)", parameters)
    return function.rpartition("::")[0] + (of_server[1] if of_server else "")


def pytest_collection_finish() -> None:
    # What is imported by now stays, and tests leave little behind: the collector need not come so often.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def choice(request: pytest.FixtureRequest) -> servers.Choice:
    """Which server a test is for."""
    choice: servers.Choice = getattr(request, "param", servers.chosen()[0])
    return choice


def _server(kind: str) -> Any:
    @pytest.fixture(scope="session", name=f"{kind}_server")
    def server() -> Iterator[servers.Server]:
        with servers.serve(next(choice for choice in servers.chosen() if choice.kind == kind)) as server:
            servers.make_roles(server)
            yield server

    return server


def _noproc(kind: str) -> Any:
    return factories.postgresql_noproc(depends_on=f"{kind}_server", dbname=f"wm{os.getpid()}")


# As fixtures of their own they stay until the end, whichever is tested on.
running_server, installed_server, embedded_server = map(_server, servers.KINDS)
running_noproc, installed_noproc, embedded_noproc = map(_noproc, servers.KINDS)


@pytest.fixture(scope="session")
def server(choice: servers.Choice, request: pytest.FixtureRequest) -> servers.Server:
    server: servers.Server = request.getfixturevalue(f"{choice.kind}_server")
    return server


@pytest.fixture(scope="session")
def executor(choice: servers.Choice, request: pytest.FixtureRequest) -> NoopExecutor:
    executor: NoopExecutor = request.getfixturevalue(f"{choice.kind}_noproc")
    return executor


@pytest.fixture(scope="session")
def workflow_server_url(executor: NoopExecutor) -> str:
    """Our own plugin, which some tests use as a service does, makes its databases on the same server."""
    return Database(executor.maintenance_dbname, executor).url(executor.user)


@pytest.fixture(scope="session")
def templates(executor: NoopExecutor) -> Iterator[Templates]:
    templates = Templates(executor, executor.template_dbname)
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
def empty_on_new_cluster(choice: servers.Choice) -> Iterator[Database]:
    """Empty, on a server of its own with no role but the owner's: for tests about roles that are missing."""
    if choice.binaries is None:
        pytest.skip("needs a cluster of its own, not a running server")
    with servers.cluster(choice.binaries) as server:
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
