"""One run: its plan, its company, what a role or a database has set, and who calls it."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from io import StringIO
from typing import Any, TypeAlias

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from tests.catalog import snapshot
from tests.command import alembic
from tests.databases import Database
from tests.online.library import Chain, Migrator, plain, revisions
from workflow_models import migrations
from workflow_models.online import MigrationError
from workflow_models.online.locks import only_migrator
from workflow_models.online.options import Options

Clone: TypeAlias = Callable[[str], Database]
Chains: TypeAlias = Callable[..., Chain]

HEAD = "wf0006_check_organization"

# Down means to alter a table of its own, in each.
BODIES = (
    plain("SELECT", "SELECT"),
    plain("SELECT", "SELECT"),
    plain("ALTER TABLE books ADD COLUMN isbn text", "ALTER TABLE books DROP COLUMN isbn"),
    plain("ALTER TABLE loans ADD COLUMN returned date", "ALTER TABLE loans DROP COLUMN returned"),
)


@contextmanager
def holding(database: Database, table: str) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(autocommit=False) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE".encode())
        yield holder


@contextmanager
def another_migrator(database: Database, name: str) -> Iterator[int]:
    """Somebody who is at work on the database; gives the process id."""
    engine = database.engine(connect_args={"application_name": "the first"})
    with engine.connect() as first, only_migrator(first, name, Options()):
        assert first.connection.driver_connection is not None
        yield first.connection.driver_connection.info.backend_pid


# Where a run ends.


def test_a_relative_downgrade_that_was_tried_again_ends_exactly_that_far_down(
    library: Database, chain: Chains
) -> None:
    four = chain(*BODIES)
    four.upgrade(library)
    with holding(library, "library.books") as holder:
        migrator = Migrator(library, lambda: four.downgrade(library, "-2", lock_timeout_ms="50"))
        first_try = migrator.until_blocked_by(holder)
        assert revisions(library) == ["lib3"]
        migrator.until_blocked_by(holder, other_than=first_try)
        holder.commit()
        migrator.result()

    assert revisions(library) == ["lib2"]


def test_a_relative_upgrade_that_was_tried_again_ends_exactly_that_far_up(
    library: Database, chain: Chains
) -> None:
    four = chain(*reversed(BODIES))
    with holding(library, "library.books") as holder:
        migrator = Migrator(library, lambda: four.upgrade(library, "+2", lock_timeout_ms="50"))
        first_try = migrator.until_blocked_by(holder)
        assert revisions(library) == ["lib1"]
        migrator.until_blocked_by(holder, other_than=first_try)
        holder.commit()
        migrator.result()

    assert revisions(library) == ["lib2"]


def test_a_relative_downgrade_that_gave_up_half_way_does_not_say_to_run_it_again(
    library: Database, chain: Chains
) -> None:
    four = chain(*BODIES)
    four.upgrade(library)

    with holding(library, "library.books"), pytest.raises(MigrationError) as refused:
        four.downgrade(library, "-2", lock_timeout_ms="50", lock_tries="1")

    # Again two down would be three.
    assert str(refused.value).endswith(
        "  Unchanged: the database is at lib3; "
        "what had been undone of the next revision stays undone and is passed over next time.\n"
        "  Next: end that transaction, then run `alembic downgrade lib2`."
    )


def test_a_run_with_nothing_to_do_says_so_and_does_nothing(
    library: Database, chain: Chains, caplog: pytest.LogCaptureFixture
) -> None:
    two = chain(*BODIES[:2])
    two.upgrade(library)
    caplog.set_level(logging.INFO, logger="workflow_models")

    two.upgrade(library)

    assert caplog.messages == ["nothing to do: the database is at lib2"]


def test_each_revision_is_told_when_it_is_done(
    library: Database, chain: Chains, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workflow_models")
    two = chain(*BODIES[:2])

    two.upgrade(library)
    two.downgrade(library, "base")

    told = [re.sub(r"\d+\.\d", "N", message) for message in caplog.messages]
    assert told == ["from: base", "+ lib1 (N s)", "+ lib2 (N s)", "- lib2 (N s)", "- lib1 (N s)"]


def test_a_revision_that_fails_leaves_those_before_it(library: Database, chain: Chains) -> None:
    with pytest.raises(MigrationError) as refused:
        chain(*BODIES[:2], plain("SELECT 1 / 0", "SELECT")).upgrade(library)

    assert str(refused.value) == (
        "error: the database refused a statement.\n"
        "  Happened: division by zero (22012)\n"
        "  Unchanged: the database is at lib2; "
        "what the next revision had built stays and is used next time.\n"
        "  Next: mend that, then run the same command again."
    )
    assert revisions(library) == ["lib2"]


def test_a_revision_that_asks_for_a_decision_is_named(library: Database, chain: Chains) -> None:
    asks = 'from alembic.util import CommandError\ndef upgrade(): raise CommandError("decide about books")\n'
    chains = chain(plain("ALTER TABLE books ADD COLUMN isbn text", "SELECT 1"), asks)

    with pytest.raises(MigrationError) as raised:
        chains.upgrade(library)

    path = chains.script.get_revision("lib2").path
    assert str(raised.value) == (
        "error: lib2 stops by itself.\n"
        "  Happened: decide about books\n"
        "  Unchanged: the database is at lib1.\n"
        f"  Next: settle that in {path}, take out its `raise`, then run the same command again."
    )


def test_a_migrator_that_is_ended_by_the_server_says_so(library: Database, chain: Chains) -> None:
    one = chain(plain("LOCK TABLE books IN ACCESS EXCLUSIVE MODE", "SELECT"))
    with holding(library, "library.books") as holder:
        migrator = Migrator(library, lambda: one.upgrade(library))
        pid = migrator.until_blocked_by(holder)
        library.execute("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid}, user=library.superuser)
        with pytest.raises(MigrationError) as refused:
            migrator.result()

    assert str(refused.value) == (
        "error: the database refused a statement.\n"
        "  Happened: terminating connection due to administrator command (57P01)\n"
        "  Unchanged: the database is at base; "
        "what the next revision had built stays and is used next time.\n"
        "  Next: run the same command again."
    )


# Several migrators.


def test_a_migrator_that_waits_longer_than_it_may_names_the_one_at_work(upgraded: Database) -> None:
    with another_migrator(upgraded, "workflow_private.alembic_version") as pid:
        ran = alembic("-x", "migrator-wait-s=1", "upgrade", "head", DATABASE_URL=upgraded.url())

    told = re.sub(r"\d+ s in a transaction", "some s in a transaction", ran.stderr)
    holder = f"pid {pid} (the first, user app_owner, some s in a transaction, idle in transaction)"
    assert (ran.status, ran.stdout) == (1, "")
    assert told == (
        f"waiting for another migrator: {holder}\n"
        "error: another migrator is at work on this database.\n"
        f"  Happened: waited 1 s; {holder} holds the migrators' lock.\n"
        "  Unchanged: this run did nothing.\n"
        "  Next: let it finish, or end it, then run the same command again.\n"
    )


def test_a_concurrent_index_build_waits_neither_for_the_migrator_at_work_nor_for_one_that_waits(
    library: Database, chain: Chains, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workflow_models")
    one = chain(BODIES[0])
    with library.connect() as builder:
        with another_migrator(library, "registry.alembic_version"):
            migrator = Migrator(library, lambda: one.upgrade(library))
            migrator.until_it_says("waiting for another migrator", caplog)

            builder.execute("SET lock_timeout = '5s'")
            builder.execute("CREATE INDEX CONCURRENTLY ON library.books (title)")

        migrator.result()

    assert revisions(library) == ["lib1"]


# What a role or a database has set never decides.

INHERITED = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "100ms",
    "transaction_timeout": "100ms",
}


@pytest.fixture
def hurried(library: Database) -> Database:
    """A database where the role's sessions are given no time, by whatever of these the server knows."""
    with library.connect(library.superuser) as connection:
        known = connection.execute("SELECT name FROM pg_settings WHERE name = ANY (%s)", [[*INHERITED]])
        for (setting,) in known.fetchall():
            connection.execute(
                f"ALTER ROLE app_owner IN DATABASE {library.name} "
                f"SET {setting} = '{INHERITED[setting]}'".encode()
            )
    return library


# Longer than each of them.
SLOW = plain("SELECT pg_sleep(0.15)", "SELECT pg_sleep(0.15)")


def revisions_of(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT version_num FROM registry.alembic_version", user=database.superuser)


def test_an_inherited_timeout_ends_neither_upgrade_nor_downgrade(hurried: Database, chain: Chains) -> None:
    two = chain(SLOW, SLOW)

    two.upgrade(hurried)
    assert revisions_of(hurried) == [("lib2",)]

    two.downgrade(hurried, "lib1")
    assert revisions_of(hurried) == [("lib1",)]


def test_an_inherited_timeout_ends_no_concurrent_build(hurried: Database, chain: Chains) -> None:
    one = chain('def upgrade(): op.create_index_concurrently("books_title_idx", "books", ["title"])')
    with hurried.connect(hurried.superuser, autocommit=False) as writer:
        writer.execute("LOCK TABLE library.books IN ROW EXCLUSIVE MODE")
        migrator = Migrator(hurried, lambda: one.upgrade(hurried))
        migrator.until_blocked_by(writer)
        writer.rollback()
        migrator.result()

    assert hurried.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'library.books_title_idx'::regclass",
        user=hurried.superuser,
    ) == [(True,)]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_inherited_isolation_makes_no_build_wait_for_the_migrators_own_lock(
    library: Database, chain: Chains, level: str
) -> None:
    library.execute(
        f"ALTER ROLE app_owner IN DATABASE {library.name} SET default_transaction_isolation = '{level}'",
        user=library.superuser,
    )

    chain('def upgrade(): op.create_index_concurrently("books_title_idx", "books", ["title"])').upgrade(
        library
    )

    assert revisions(library) == ["lib1"]


def test_an_inherited_timeout_ends_no_wait_for_another_migrator(
    hurried: Database, chain: Chains, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workflow_models")
    one = chain(BODIES[0])
    with (
        hurried.engine(hurried.superuser).connect() as first,
        only_migrator(first, "registry.alembic_version", Options()),
    ):
        # Asks again after a pause that is longer than each timeout.
        migrator = Migrator(hurried, lambda: one.upgrade(hurried))
        migrator.until_it_says("waiting for another migrator", caplog)

    migrator.result()

    assert revisions_of(hurried) == [("lib1",)]


def test_an_inherited_timeout_does_not_hide_who_holds_the_lock(hurried: Database, chain: Chains) -> None:
    with hurried.connect(hurried.superuser, autocommit=False) as holder:
        holder.execute("LOCK TABLE library.books IN ACCESS SHARE MODE")
        pid = holder.info.backend_pid
        with pytest.raises(MigrationError, match=rf"; pid {pid} \(user "):
            chain(BODIES[2]).upgrade(hurried, lock_timeout_ms="200", lock_tries="2")


@pytest.mark.parametrize(
    ("deadlock_timeout", "lock_timeout_ms"), [("1s", 800), ("1min", 5000), ("20ms", 16), ("1ms", 1)]
)
def test_a_longer_lock_timeout_stays_below_the_servers_deadlock_timeout(
    library: Database, chain: Chains, deadlock_timeout: str, lock_timeout_ms: int
) -> None:
    library.execute(
        f"ALTER ROLE app_owner IN DATABASE {library.name} SET deadlock_timeout = '{deadlock_timeout}'",
        user=library.superuser,
    )
    noting = plain(
        "CREATE TABLE library.noted AS SELECT setting::integer FROM pg_settings WHERE name = 'lock_timeout'",
        "SELECT",
    )

    chain(noting).upgrade(library, lock_timeout_ms="5000")

    assert library.execute("SELECT setting FROM library.noted") == [(lock_timeout_ms,)]


def test_giving_up_tells_the_lock_timeout_that_was_used(library: Database, chain: Chains) -> None:
    library.execute(
        f"ALTER ROLE app_owner IN DATABASE {library.name} SET deadlock_timeout = '50ms'",
        user=library.superuser,
    )
    with holding(library, "library.books"), pytest.raises(MigrationError, match="1 tries of 40 ms; "):
        chain(BODIES[2]).upgrade(library, lock_timeout_ms="5000", lock_tries="1")


# Called from Python.


def loggers() -> dict[str, tuple[Any, ...]]:
    found = {
        name: each
        for name, each in logging.root.manager.loggerDict.items()
        if isinstance(each, logging.Logger)
    }
    return {
        name: (each.level, each.disabled, each.propagate, tuple(each.handlers))
        for name, each in {**found, "root": logging.root}.items()
        if name == "root" or name.split(".")[0] in ("workflow_models", "alembic", "sqlalchemy", "a_service")
    }


def test_called_from_python_nothing_is_printed_and_logging_stays_as_it_was(
    empty: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("a_service").setLevel(logging.DEBUG)
    before = loggers()

    migrations.upgrade(empty.url())
    migrations.check(empty.url())
    migrations.downgrade(empty.url(), "-1")

    after = loggers()
    assert {name: after[name] for name in before} == before
    assert capfd.readouterr() == ("", "")


def test_an_ini_file_that_a_caller_from_python_loads_leaves_logging_alone_too(upgraded: Database) -> None:
    config = Config("alembic.ini", attributes={"x": {"url": upgraded.url()}})
    before = loggers()

    command.upgrade(config, "head")

    after = loggers()
    assert {name: after[name] for name in before} == before


def test_upgrades_of_several_databases_in_threads_do_not_mix(clone: Clone) -> None:
    ends = {clone("empty").url(): "wf0001_create_workflow_tables", clone("empty").url(): HEAD}

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(migrations.upgrade, ends, ends.values()))

    assert {url: migrations.current(url) for url in ends} == {url: [end] for url, end in ends.items()}


def test_an_upgrade_runs_inside_a_running_event_loop(empty: Database) -> None:
    async def service() -> None:
        migrations.upgrade(empty.url(), "wf0001_create_workflow_tables")

    asyncio.run(service())

    assert revisions(empty, "workflow_private") == ["wf0001_create_workflow_tables"]


# Commands that only look.


@pytest.fixture(params=["empty", "upgraded"])
def looked_at(request: pytest.FixtureRequest, clone: Clone) -> Iterator[Database]:
    """A database on which a migrator is at work."""
    database = clone(request.param)
    with another_migrator(database, "workflow_private.alembic_version"):
        yield database


def relations(database: Database) -> object:
    return snapshot(database.observer), database.execute("SELECT oid, relname FROM pg_class ORDER BY 1")


def test_check_neither_waits_for_a_migrator_nor_changes_anything(looked_at: Database) -> None:
    before = relations(looked_at)

    with pytest.raises((CommandError, MigrationError)) if "empty" in looked_at.name else nullcontext():
        migrations.check(looked_at.url())

    assert relations(looked_at) == before


def test_current_neither_waits_for_a_migrator_nor_changes_anything(looked_at: Database) -> None:
    before = relations(looked_at)
    config = migrations.alembic_config(x={"url": looked_at.url()})
    config.stdout = StringIO()

    command.current(config)

    assert config.stdout.getvalue() == ("" if "empty" in looked_at.name else f"{HEAD} (head)\n")
    assert relations(looked_at) == before
