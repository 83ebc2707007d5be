"""Locks that others hold: short tries, an end with their name, and nothing half done."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.databases import Database
from tests.online.library import Chain, Migrator, plain, revisions
from tests.waiting import Waiting
from workflow_models.online import MigrationError
from workflow_models.online.locks import (
    LocksNotAcquiredError,
    Patience,
    is_lock_failure,
    only_migrator,
    sqlstate,
)
from workflow_models.online.options import Options

Clone: TypeAlias = Callable[[str], Database]
Chains: TypeAlias = Callable[..., Chain]

# Each on a table of its own; the second one in the way that a live table needs.
BOOKS = plain("ALTER TABLE books ADD COLUMN isbn text", "ALTER TABLE books DROP COLUMN isbn")
LOANS = """
def upgrade(): op.execute_step("ALTER TABLE loans ADD COLUMN IF NOT EXISTS returned date")
def downgrade(): op.execute_step("ALTER TABLE loans DROP COLUMN IF EXISTS returned")
"""
PLAIN_LOANS = plain("ALTER TABLE loans ADD COLUMN returned date", "ALTER TABLE loans DROP COLUMN returned")

# The watch asks every 100 ms who is in the way.
LONG_ENOUGH_TO_BE_SEEN = {"lock_timeout_ms": "200", "lock_tries": "2"}
AT_ONCE = {"lock_timeout_ms": "20", "lock_tries": "1"}

each_kind_of_step = pytest.mark.parametrize("loans", [LOANS, PLAIN_LOANS], ids=["step", "plain statement"])


@contextmanager
def holding(database: Database, table: str, mode: str = "ACCESS SHARE") -> Iterator[psycopg.Connection[Any]]:
    """Somebody who stays in a transaction that has read the table, or more than that."""
    with database.connect(autocommit=False) as holder:
        holder.execute("SET application_name = 'edge-worker'")
        holder.execute(f"LOCK TABLE library.{table} IN {mode} MODE".encode())
        yield holder


def without_age(refused: pytest.ExceptionInfo[MigrationError]) -> str:
    return re.sub(r"\d+ s in a transaction", "some s in a transaction", str(refused.value))


def columns(database: Database) -> list[str]:
    return [
        name
        for (name,) in database.execute(
            """
            SELECT attname FROM pg_attribute
            WHERE attrelid IN ('library.books'::regclass, 'library.loans'::regclass)
                AND attname IN ('isbn', 'returned') AND NOT attisdropped
            ORDER BY 1
            """
        )
    ]


# A holder who goes in time.


@each_kind_of_step
def test_an_upgrade_that_had_to_wait_ends_once_the_holder_has_gone(
    library: Database, chain: Chains, loans: str
) -> None:
    revisions_of_both = chain(BOOKS, loans)
    with holding(library, "loans") as holder:
        migrator = Migrator(library, lambda: revisions_of_both.upgrade(library))
        migrator.until_blocked_by(holder)
        holder.commit()
        migrator.result()

    assert (columns(library), revisions(library)) == (["isbn", "returned"], ["lib2"])


@each_kind_of_step
def test_a_try_that_failed_is_followed_by_another(library: Database, chain: Chains, loans: str) -> None:
    revisions_of_both = chain(BOOKS, loans)
    with holding(library, "loans") as holder:
        migrator = Migrator(library, lambda: revisions_of_both.upgrade(library, lock_timeout_ms="20"))
        migrator.until_blocked_by(holder)
        migrator.until_not_blocked_by(holder)
        migrator.until_blocked_by(holder)
        holder.commit()
        migrator.result()

    assert (columns(library), revisions(library)) == (["isbn", "returned"], ["lib2"])


@each_kind_of_step
def test_others_get_at_the_table_between_two_tries(library: Database, chain: Chains, loans: str) -> None:
    revisions_of_both = chain(BOOKS, loans)
    with holding(library, "loans") as holder, library.connect() as reader:
        migrator = Migrator(library, lambda: revisions_of_both.upgrade(library, lock_timeout_ms="100"))
        migrator.until_blocked_by(holder)

        # Queues behind the migrator, which asks for more.
        read = reader.execute("SELECT count(*) FROM library.loans").fetchall()

        holder.commit()
        migrator.result()
    assert read == [(10,)]


# A holder who stays.


@each_kind_of_step
def test_giving_up_names_who_holds_the_lock_and_where_the_database_is(
    library: Database, chain: Chains, loans: str
) -> None:
    with holding(library, "loans") as holder:
        holder.execute("SELECT FROM library.loans WHERE reader = 'hunter2'")
        pid = holder.info.backend_pid
        with pytest.raises(MigrationError) as refused:
            chain(BOOKS, loans).upgrade(library, **LONG_ENOUGH_TO_BE_SEEN)

    assert without_age(refused) == (
        "error: the locks for the next step could not be had.\n"
        f"  Happened: 2 tries of 200 ms; pid {pid} (edge-worker, user app_owner, "
        "some s in a transaction, idle in transaction, SELECT FROM library.loans).\n"
        "  Unchanged: the database is at lib1; "
        "what the next revision had built stays and is used next time.\n"
        "  Next: end that transaction, then run the same command again."
    )


def test_giving_up_names_every_holder(library: Database, chain: Chains) -> None:
    with holding(library, "loans") as one, holding(library, "loans") as other:
        pids = [one.info.backend_pid, other.info.backend_pid]
        with pytest.raises(MigrationError) as refused:
            chain(LOANS).upgrade(library, **LONG_ENOUGH_TO_BE_SEEN)

    assert [int(pid) for pid in re.findall(r"pid (\d+)", str(refused.value))] == sorted(pids)


def test_giving_up_names_a_transaction_that_was_prepared(library: Database, chain: Chains) -> None:
    if library.execute("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("a running server that lets none be prepared")
    with holding(library, "loans") as holder:
        holder.execute("PREPARE TRANSACTION 'it''s open'")
        with pytest.raises(MigrationError) as refused:
            chain(LOANS).upgrade(library, **LONG_ENOUGH_TO_BE_SEEN)
    library.execute("ROLLBACK PREPARED 'it''s open'")

    assert re.search(
        r"; prepared transaction 'it''s open' \(user app_owner, \d+ s old; "
        r"to end it: ROLLBACK PREPARED 'it''s open'\)\.\n",
        str(refused.value),
    )


def test_giving_up_tells_no_more_of_others_than_the_migrator_may_see(
    library: Database, chain: Chains
) -> None:
    with library.connect(library.superuser, autocommit=False) as holder:
        holder.execute("SELECT FROM library.loans WHERE reader = 'hunter2'")
        pid = holder.info.backend_pid
        with pytest.raises(MigrationError) as refused:
            chain(LOANS).upgrade(library, **LONG_ENOUGH_TO_BE_SEEN)

    assert f"; pid {pid} (user {library.superuser}).\n" in str(refused.value)


@each_kind_of_step
def test_giving_up_leaves_the_chain_at_the_end_of_a_revision_and_the_next_run_finishes(
    library: Database, chain: Chains, loans: str
) -> None:
    revisions_of_both = chain(BOOKS, loans)
    with holding(library, "loans"), pytest.raises(MigrationError):
        revisions_of_both.upgrade(library, **AT_ONCE)
    assert (columns(library), revisions(library)) == (["isbn"], ["lib1"])

    revisions_of_both.upgrade(library)

    assert (columns(library), revisions(library)) == (["isbn", "returned"], ["lib2"])


def test_giving_up_in_the_middle_of_a_revision_keeps_its_steps_for_the_next_run(
    library: Database, chain: Chains
) -> None:
    of_two_steps = chain("""
def upgrade():
    op.execute_step("ALTER TABLE books ADD COLUMN IF NOT EXISTS isbn text")
    op.execute_step("ALTER TABLE loans ADD COLUMN IF NOT EXISTS returned date")
def downgrade(): pass
""")
    with holding(library, "loans"), pytest.raises(MigrationError, match="the database is at base; "):
        of_two_steps.upgrade(library, **AT_ONCE)
    assert (columns(library), revisions(library)) == (["isbn"], [])

    of_two_steps.upgrade(library)

    assert (columns(library), revisions(library)) == (["isbn", "returned"], ["lib1"])


@each_kind_of_step
def test_a_downgrade_gives_up_at_the_end_of_a_revision_too(
    library: Database, chain: Chains, loans: str
) -> None:
    revisions_of_both = chain(loans, BOOKS)
    revisions_of_both.upgrade(library)

    with holding(library, "loans"), pytest.raises(MigrationError, match="the database is at lib1; "):
        revisions_of_both.downgrade(library, "base", **AT_ONCE)

    assert (columns(library), revisions(library)) == (["returned"], ["lib1"])


def test_a_revision_that_went_well_gives_the_next_one_all_its_tries(library: Database, chain: Chains) -> None:
    # Each of the two fails once: together that would be one failure too many.
    fails_once = [
        plain(
            f"""DO $$ BEGIN IF nextval('library.{name}') < 2 THEN
                RAISE EXCEPTION 'busy' USING ERRCODE = 'lock_not_available'; END IF; END $$""",
            "SELECT",
        )
        for name in ("one", "other")
    ]
    library.execute("CREATE SEQUENCE library.one; CREATE SEQUENCE library.other")

    chain(*fails_once).upgrade(library, lock_tries="2")

    assert revisions(library) == ["lib2"]


def test_a_concurrent_build_that_ended_in_a_deadlock_is_built_again_from_the_start(
    library: Database, chain: Chains
) -> None:
    one = chain('def upgrade(): op.create_index_concurrently("books_title_idx", "books", ["title"])')
    library.execute(
        f"ALTER ROLE app_owner IN DATABASE {library.name} SET deadlock_timeout = '20ms'",
        user=library.superuser,
    )
    with (
        holding(library, "books", "ROW EXCLUSIVE") as holder,
        library.connect(library.superuser, autocommit=False) as writer,
    ):
        migrator = Migrator(library, lambda: one.upgrade(library))
        pid = migrator.until_blocked_by(holder)
        writer.execute("SET deadlock_timeout = '1min'")  # it is the migrator that sees the deadlock
        writer.execute("LOCK TABLE library.books IN ROW EXCLUSIVE MODE")
        waiting = Waiting(library, writer)
        waiting.send("LOCK TABLE library.books IN SHARE UPDATE EXCLUSIVE MODE")
        waiting.until_blocked_by(pid)
        # Once the holder has gone, the next that the migrator waits for is the writer, who waits for it.
        holder.rollback()
        waiting.result()
        writer.rollback()
        migrator.result()

    # What the deadlock left behind was INVALID, and had this name.
    assert library.execute(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
        "WHERE indrelid = 'library.books'::regclass AND NOT indisprimary"
    ) == [("library.books_title_idx", True)]
    assert library.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [
        (1,)
    ]


# What is tried again, and what is not.

RAISING = (
    """DO $$ BEGIN PERFORM nextval('library.tries'); RAISE EXCEPTION 'no' USING ERRCODE = '{}'; END $$"""
)


def tries(library: Database) -> int:
    [(tries,)] = library.execute("SELECT last_value FROM library.tries")
    return int(tries)


@pytest.mark.parametrize("as_step", [True, False], ids=["step", "plain statement"])
@pytest.mark.parametrize("state", ["55P03", "40P01"])
def test_a_lock_timeout_and_a_deadlock_are_tried_again(
    library: Database, chain: Chains, state: str, as_step: bool
) -> None:
    library.execute("CREATE SEQUENCE library.tries")
    raising = RAISING.format(state)
    body = f"def upgrade(): op.execute_step({raising!r})" if as_step else plain(raising, "SELECT")

    with pytest.raises(MigrationError, match=r"error: the locks .*\n  Happened: 2 tries of 400 ms; "):
        chain(body).upgrade(library, lock_tries="2")

    assert tries(library) == 2


@pytest.mark.parametrize("as_step", [True, False], ids=["step", "plain statement"])
# A serialization failure, a cancelled statement, an object in use, a unique violation.
@pytest.mark.parametrize("state", ["40001", "57014", "55006", "23505"])
def test_other_failures_are_not_tried_again(
    library: Database, chain: Chains, state: str, as_step: bool
) -> None:
    library.execute("CREATE SEQUENCE library.tries")
    raising = RAISING.format(state)
    body = f"def upgrade(): op.execute_step({raising!r})" if as_step else plain(raising, "SELECT")

    with pytest.raises(MigrationError) as refused:
        chain(body).upgrade(library, lock_tries="3")

    assert str(refused.value) == (
        "error: the database refused a statement.\n"
        f"  Happened: no ({state})\n"
        "  Unchanged: the database is at base; "
        "what the next revision had built stays and is used next time.\n"
        "  Next: mend that, then run the same command again."
    )
    assert tries(library) == 1


def test_what_is_counted_as_a_lock_failure_is_told_by_its_sqlstate(library: Database) -> None:
    with library.connect() as connection, pytest.raises(psycopg.Error) as failed:
        connection.execute(RAISING.format("55P03").replace("PERFORM nextval('library.tries');", ""))

    assert sqlstate(failed.value) == "55P03"
    assert is_lock_failure(failed.value)
    assert not is_lock_failure(ValueError("55P03"))


def test_patience_hands_on_an_error_of_another_kind_as_it_is(library: Database) -> None:
    with library.engine().connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(text("SELECT 1 / 0"))
    patience = Patience(Options(lock_tries=2))

    with pytest.raises(DBAPIError) as raised:
        patience.failed(failed.value)

    assert (raised.value, patience.failures) == (failed.value, 0)


def test_patience_ends_at_the_number_of_tries_with_who_was_seen(library: Database) -> None:
    with library.engine().connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40P01'; END $$"))
    patience = Patience(Options(lock_tries=2), lambda: "pid 4711")
    patience.failed(failed.value)

    with pytest.raises(LocksNotAcquiredError) as gave_up:
        patience.failed(failed.value)

    assert (gave_up.value.tries, gave_up.value.blocker) == (2, "pid 4711")


# One migrator at a time.


def test_the_lock_of_migrators_is_free_once_the_first_is_done_or_gone(library: Database) -> None:
    engine = library.engine()
    with engine.connect() as first, only_migrator(first, "books", Options()):
        pass
    with engine.connect() as first, pytest.raises(RuntimeError), only_migrator(first, "books", Options()):
        raise RuntimeError
    with library.connect(library.superuser) as other:
        locks = other.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'").fetchall()

    assert locks == []


def test_migrators_of_other_things_do_not_wait_for_each_other(library: Database) -> None:
    engine = library.engine()
    impatient = Options(migrator_wait_s=1)
    with (
        engine.connect() as first,
        only_migrator(first, "books", impatient),
        engine.connect() as second,
        only_migrator(second, "loans", impatient),
    ):
        pass


def test_migrators_of_other_databases_do_not_wait_for_each_other(clone: Clone) -> None:
    impatient = Options(migrator_wait_s=1)
    with (
        clone("library").engine().connect() as first,
        only_migrator(first, "books", impatient),
        clone("library").engine().connect() as second,
        only_migrator(second, "books", impatient),
    ):
        pass
