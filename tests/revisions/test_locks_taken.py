"""Which locks each revision takes on a live application's tables, transaction by transaction.

`locks.txt` holds what was seen: a revision that locks more than it did changes that file, for a reviewer to
see. After a change that is meant: `LOCKS_REWRITE=1 make test ARGS=tests/revisions/test_locks_taken.py`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event

from tests.databases import Database
from workflow_models import migrations

SEEN = Path(__file__).with_name("locks.txt")
STRONG = (
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
NOTE = f"""
    INSERT INTO noted.locks (mode, relation)
    SELECT mode, relation::regclass FROM pg_locks JOIN pg_class AS c ON c.oid = relation
    WHERE pid = pg_backend_pid() AND relkind = 'r' AND relpersistence = 'p'
        AND relnamespace = 'public'::regnamespace AND mode IN {STRONG}
"""


@contextmanager
def noting_locks() -> Iterator[None]:
    """Have each step of a migrator write down, in its own transaction, the locks that it holds at its end."""

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> tuple[str, Any]:
        if statement.startswith(("DO $", "ALTER TABLE", "DROP TRIGGER")):
            return f"BEGIN; {statement}; {NOTE}; COMMIT", parameters
        return statement, parameters

    event.listen(Engine, "before_cursor_execute", note, retval=True)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def locks_of(database: Database, migrate: Callable[[], None]) -> list[str]:
    """Give a line for each transaction that took strong locks: the strongest on each table."""
    database.execute("DROP SCHEMA IF EXISTS noted CASCADE; CREATE SCHEMA noted")
    database.execute(
        "CREATE TABLE noted.locks (xact xid8 DEFAULT pg_current_xact_id(), "
        "place serial, mode text, relation regclass)"
    )
    with noting_locks():
        migrate()
    transactions: dict[Any, dict[str, str]] = {}
    for xact, mode, relation in database.execute(
        "SELECT xact::text, mode, relation::text FROM noted.locks ORDER BY place"
    ):
        held = transactions.setdefault(xact, {})
        held[relation] = max(held.get(relation, mode), mode, key=STRONG.index)
    lines = [
        ", ".join(f"{mode} {relation}" for relation, mode in sorted(held.items()))
        for held in transactions.values()
    ]
    database.execute("DROP SCHEMA noted CASCADE")
    return [f"    {line}" for place, line in enumerate(lines) if place == 0 or line != lines[place - 1]]


def revisions() -> list[str]:
    script = ScriptDirectory.from_config(migrations.alembic_config())
    return [revision.revision for revision in reversed(list(script.walk_revisions()))]


def test_each_revision_takes_the_locks_that_were_reviewed(clone: Callable[[str], Database]) -> None:
    database = clone("adopted")
    seen: list[str] = []
    names = revisions()
    for name in names:
        seen += [f"+ {name}", *locks_of(database, partial(migrations.upgrade, database.url(), name))]
    for name, target in zip(reversed(names[2:]), reversed(names[1:-1]), strict=True):
        seen += [f"- {name}", *locks_of(database, partial(migrations.downgrade, database.url(), target))]

    text = "\n".join(seen) + "\n"
    if os.environ.get("LOCKS_REWRITE"):
        SEEN.write_text(text)
    assert text == SEEN.read_text()


def test_no_transaction_locks_two_tables_strongly_but_for_a_foreign_key() -> None:
    """A foreign key locks both its ends: a downgrade that drops one, and wf0004, which adds two."""
    two = [
        line.strip()
        for line in SEEN.read_text().splitlines()
        if sum(entry.split()[0] in STRONG[2:] for entry in line.strip().split(", ")) > 1
    ]

    assert two == [
        "ShareRowExclusiveLock organizations, ShareRowExclusiveLock workflow_execution_logs",
        "ShareRowExclusiveLock workflow_definitions, ShareRowExclusiveLock workflow_execution_logs",
        "AccessExclusiveLock workflow_definitions, AccessExclusiveLock workflow_execution_logs",
        "AccessExclusiveLock organizations, AccessExclusiveLock workflow_execution_logs",
    ]
