"""The operation directives: ``op.…`` for changes that a live application does not notice.

Each is safe to run again, leaves alone what is already as it should be, and runs in a transaction of its
own: whatever the revision did before it is committed.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from . import statements
from .errors import MigrationError
from .locks import Patience, Watch
from .options import Options
from .progress import IndexBuild, Observed, Progress, Unmeasured
from .session import settled, transaction, without_lock_timeout

if TYPE_CHECKING:  # Alembic loads this module while that is being imported
    from alembic.runtime.migration import MigrationContext

log = getLogger(__name__)

Result = TypeVar("Result")

FILLED_ELSEWHERE = "online_filled_elsewhere"
"""Attribute of Alembic's Config, for scripts whose statements cannot commit: in place of a backfill stands
what raises an error where that would change a row, with this text as its detail."""

# What `run()` hands to Alembic, online and for a script.
_OF_A_RUN = ("online_patience", "online_script_lock_timeout_ms")

# A definition that is moved waits for the batch that has locked it.
_FIRST_BATCH_ROWS, _LARGEST_BATCH_ROWS, _BATCH_SECONDS = 1_000, 2_500, 0.25
_SCRIPT_WINDOW_ROWS = 80_000
# Smaller where the first row that is not right ends it, and all that was changed is undone.
_REFUSAL_WINDOW_ROWS = 1_000


class Step(MigrateOperation):
    """Statements of which each is a transaction, tried again while others hold its locks."""

    def __init__(self, *sql: str, waits: bool = False, validates: str | None = None) -> None:
        self.sql = sql
        self.waits = waits
        self.validates = validates

    def run(self, context: MigrationContext) -> None:
        """Run, or write, the statements."""
        told = _told(context, Unmeasured(f"validating {self.validates}")) if self.validates else nullcontext()
        with context.autocommit_block(), told:
            for sql in self.sql:
                if context.as_sql:
                    _write(context, sql, waits=self.waits)
                else:
                    _run(context, sql, waits=self.waits)

    @classmethod
    def execute_step(cls, operations: Operations, statement: str) -> None:
        """Run one statement that is safe to run again."""
        operations.invoke(cls(statement))

    @classmethod
    def execute_unless(cls, operations: Operations, condition: str, statement: str) -> None:
        """Run one statement unless the query ``condition`` gives a row."""
        operations.invoke(cls(statements.unless(condition, statement)))

    @classmethod
    def ensure_table(
        cls,
        operations: Operations,
        name: str,
        columns: str,
        *,
        comment: str,
        comments: Mapping[str, str],
    ) -> None:
        """Create a table, or bring the declared columns of an existing one to what is declared.

        :param columns: the column list of CREATE TABLE; its constraints are only for a new table.
        :raises MigrationError: on REFERENCES in the column list.
        """
        _refuse_references(name, columns)
        operations.invoke(cls(statements.table(name, columns, comments, comment)))

    @classmethod
    def ensure_columns(
        cls, operations: Operations, table: str, columns: str, *, comments: Mapping[str, str]
    ) -> None:
        """Add the columns that a table lacks, and bring the others to what is declared.

        :raises MigrationError: on REFERENCES in the column list.
        """
        _refuse_references(table, columns)
        operations.invoke(cls(statements.columns(table, columns, comments)))

    @classmethod
    def ensure_policy(
        cls,
        operations: Operations,
        name: str,
        table: str,
        command: str,
        *,
        to: str | Sequence[str],
        using: str | None = None,
        check: str | None = None,
    ) -> None:
        """Create a policy, or replace one of that name that says something else, in one transaction."""
        roles = [to] if isinstance(to, str) else to
        operations.invoke(cls(statements.policy(name, table, command, to=roles, using=using, check=check)))

    @classmethod
    def ensure_trigger(cls, operations: Operations, name: str, table: str, events: str, action: str) -> None:
        """Create a trigger, or replace one of that name that does something else or is disabled.

        :param events: what stands before ON, as ``BEFORE INSERT``.
        :param action: what stands behind the table, as ``FOR EACH ROW EXECUTE FUNCTION f()``.
        """
        operations.invoke(cls(statements.trigger(name, table, events, action)))

    @classmethod
    def create_foreign_key_not_valid(
        cls,
        operations: Operations,
        constraint_name: str,
        source_table: str,
        referent_table: str,
        local_cols: Sequence[str],
        remote_cols: Sequence[str],
        *,
        onupdate: str | None = None,
        ondelete: str | None = None,
        if_referent_exists: bool = False,
    ) -> None:
        """Add a foreign key NOT VALID, or replace one of that name that is another.

        One from these columns to those that is called otherwise gets the name first.

        :param if_referent_exists: the referenced table is somebody else's: do nothing where it does not
            exist, or where these columns have a key to it or to another table; where it cannot be referred
            to, as a view or a column without a key, say so and leave the key out.
        """
        sql = statements.foreign_key_not_valid(
            constraint_name,
            source_table,
            referent_table,
            local_cols,
            remote_cols,
            onupdate=onupdate,
            ondelete=ondelete,
            if_exists=if_referent_exists,
        )
        operations.invoke(cls(sql))

    @classmethod
    def drop_foreign_key(
        cls, operations: Operations, constraint_name: str, source_table: str, referent_table: str
    ) -> None:
        """Drop a foreign key where it is there."""
        operations.invoke(cls(statements.drop_foreign_key(constraint_name, source_table, referent_table)))

    @classmethod
    def validate_constraint(cls, operations: Operations, constraint_name: str, table: str) -> None:
        """Validate a constraint that is there and NOT VALID. Writers go on meanwhile."""
        sql = statements.validate(constraint_name, table)
        operations.invoke(cls(sql, waits=True, validates=constraint_name))

    @classmethod
    def create_check_where_rows_allow(
        cls, operations: Operations, constraint_name: str, table: str, column: str, condition: str
    ) -> None:
        """Add a CHECK on a column and validate it; where rows do not satisfy it, say so and leave it out."""
        sql = statements.check_where_rows_allow(constraint_name, table, column, condition)
        operations.invoke(cls(*sql, validates=constraint_name))

    @classmethod
    def set_privileges(
        cls,
        operations: Operations,
        kind: str,
        name: str | Sequence[str],
        granted: Mapping[str, Iterable[str | tuple[str, Sequence[str]]]],
        *,
        to_nobody_else: bool = False,
    ) -> None:
        """Give each of these roles exactly these privileges, and PUBLIC none; other roles are left alone.

        What a role could pass on and has passed on goes with that; what a role that is not named has passed
        on stays.

        :param kind: ``TABLE``, ``SEQUENCE``, ``FUNCTION`` or ``SCHEMA``.
        :param name: of one of them, or of several.
        :param granted: for each role its privileges; one on columns only is ``("UPDATE", [columns])``.
        :param to_nobody_else: take what other roles have of the owner, as by ALTER DEFAULT PRIVILEGES.
        """
        names = [name] if isinstance(name, str) else name
        operations.invoke(cls(statements.privileges(kind, names, granted, to_nobody_else=to_nobody_else)))


class ConcurrentIndex(MigrateOperation):
    """An index, built while writers go on."""

    def __init__(
        self,
        name: str,
        table: str,
        columns: Sequence[str | TextClause],
        unique: bool,
        include: Sequence[str],
        where: str | None,
    ) -> None:
        self.name = name
        self.table = table
        self.columns = [c.text if isinstance(c, TextClause) else statements.identifier(c) for c in columns]
        self.unique = unique
        self.include = [statements.identifier(column) for column in include]
        self.where = where

    @classmethod
    def create_index_concurrently(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        columns: Sequence[str | TextClause],
        *,
        unique: bool = False,
        include: Sequence[str] = (),
        where: str | None = None,
    ) -> None:
        """Create an index; one of that name that is INVALID or another is built anew.

        Another one serves its readers until then, as ``<name>_ccold``. It is built without lock_timeout: it
        waits for running transactions, but nobody waits for it.
        """
        operations.invoke(cls(index_name, table_name, columns, unique, include, where))

    def run(self, context: MigrationContext) -> None:
        """Build the index where it is not there as wanted."""
        with context.autocommit_block():
            if context.as_sql:
                on_clone = self._sql(on_clone=True)
                _write(context, statements.set_different_index_aside(self.name, self.table, on_clone))
                _write(context, self._sql(), waits=True)
                _write(context, statements.hand_index_over(self.name, self.table))
                _write(context, statements.drop_index_aside(self.name, self.table))
                return
            _retried(context, partial(self._ensure, context))

    def _ensure(self, context: MigrationContext) -> None:
        """Go through all of it: a build that failed has left an INVALID index."""
        connection = context.connection
        assert connection is not None
        with settled(connection):
            free = connection.scalar(
                text(_WITHOUT_THEM.format(table=statements.regclass(self.table))),
                {"name": self.name, "aside": statements.aside(self.name)},
            )
            found = None if free else self._found(connection)
        if found is None:
            with without_lock_timeout(connection), _told(context, IndexBuild(self.name, free)):
                _execute(connection, self._sql(free))
            return
        is_right = False
        if found.valid:
            with transaction(connection):
                is_right = found.facts == self._wanted(connection)
        index = statements.beside(found.table, self.name)
        aside = statements.beside(found.table, statements.aside(self.name))
        is_there, is_aside = found.is_there, found.is_aside
        if is_right and not is_aside:
            return
        if found.foreign_keys and not is_right:
            self._refuse_to_replace(
                f"a foreign key needs it: {found.foreign_keys}",
                "that index, and the key.",
                "drop the key or let it refer to another one",
            )
        if found.identifies and not is_right:
            self._refuse_to_replace(
                f"it is the replica identity of {found.table}, whose publications need one",
                "that index.",
                "give the table another replica identity",
            )
        if found.constraint_name and not is_right:
            constraint = statements.identifier(found.constraint_name)
            _run(context, f"ALTER TABLE {statements.relation(self.table)} DROP CONSTRAINT {constraint}")
        elif found.valid and not is_right and not found.is_taken:
            name = statements.identifier(statements.aside(self.name))
            _run(context, f"ALTER INDEX {index} RENAME TO {name}")
            is_aside, is_there = True, False
        with without_lock_timeout(connection):
            if not is_right:
                if is_there and not found.constraint_name:
                    _drop_concurrently(context, connection, index)
                with _told(context, IndexBuild(self.name, found.table)):
                    _execute(connection, self._sql(found.table))
        if is_aside:
            _run(context, statements.hand_index_over(self.name, found.table))
            with without_lock_timeout(connection):
                _drop_concurrently(context, connection, aside)

    def _sql(self, table: str | None = None, *, on_clone: bool = False) -> str:
        return statements.index(
            self.name,
            table or self.table,
            self.columns,
            unique=self.unique,
            include=self.include,
            where=self.where,
            on_clone=on_clone,
        )

    def _found(self, connection: Connection) -> Any:
        found = connection.execute(
            text(
                # With its schema: no search_path of ours holds for a concurrent statement behind a pooler.
                "SELECT n.nspname || '.' || t.relname AS table, c.oid IS NOT NULL AS is_there, "
                "coalesce(i.indrelid = t.oid, c.oid IS NULL) AS is_free, "
                "coalesce('an index of that name stands on ' || i.indrelid::regclass, "
                "'a relation of that name is there, and is no index') AS in_the_way, "
                f"coalesce(i.indisvalid, false) AS valid, {statements.INDEX_FACTS} AS facts, "
                "coalesce(i.indisreplident, false) AS identifies, "
                "(SELECT conname FROM pg_constraint WHERE conindid = c.oid AND contype IN ('p', 'u', 'x')) "
                "AS constraint_name, "
                "(SELECT string_agg(conname || ' of ' || conrelid::regclass, ', ') FROM pg_constraint "
                "WHERE conindid = c.oid AND contype = 'f') AS foreign_keys, "
                # Left by a run that was killed, it is all that the readers have.
                "aside.oid IS NOT NULL AS is_taken, EXISTS (SELECT FROM pg_index "
                "WHERE indexrelid = aside.oid AND indrelid = t.oid) AS is_aside "
                "FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace "
                "LEFT JOIN pg_class AS c ON c.relname = :name AND c.relnamespace = n.oid "
                "LEFT JOIN pg_index AS i ON i.indexrelid = c.oid "
                "LEFT JOIN pg_class AS aside ON aside.relname = :aside AND aside.relnamespace = n.oid "
                f"WHERE t.oid = {statements.regclass(self.table)}"
            ),
            {"name": self.name, "aside": statements.aside(self.name)},
        ).one()
        if not found.is_free:
            raise MigrationError(
                f"the index {self.name} cannot be built.",
                happened=f"{found.in_the_way}.",
                unchanged="what is there.",
                next_step="rename it, then run the same command again.",
            )
        return found

    def _refuse_to_replace(self, why: str, unchanged: str, next_step: str) -> NoReturn:
        raise MigrationError(
            f"the index {self.name} cannot be replaced.",
            happened=f"it is not as wanted, and {why}.",
            unchanged=unchanged,
            next_step=f"{next_step}, then run the same command again.",
        )

    def _wanted(self, connection: Connection) -> str:
        clone = statements.clone(self.table)
        _execute(connection, f"CREATE TEMPORARY TABLE {clone} (LIKE {statements.relation(self.table)})")
        _execute(connection, self._sql(on_clone=True))
        oid = f"to_regclass({statements.literal(clone)})"
        wanted = str(connection.scalar(text(statements.index_facts(self.name, oid))))
        _execute(connection, f"DROP TABLE {clone}")
        return wanted


# Asked first: to plan what tells how an index is takes longer than to build a small one.
_WITHOUT_THEM = """
    SELECT n.nspname || '.' || t.relname FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
    WHERE t.oid = {table} AND NOT EXISTS (
        SELECT FROM pg_class WHERE relnamespace = n.oid AND relname IN (:name, :aside))
"""


class DropConcurrentIndex(MigrateOperation):
    """An index, dropped while writers go on."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def drop_index_concurrently(cls, operations: Operations, index_name: str) -> None:
        """Drop an index where it exists, and what is left of one in whose place it was built."""
        operations.invoke(cls(index_name))

    def run(self, context: MigrationContext) -> None:
        """Drop the index where it is there."""
        with context.autocommit_block():
            if context.as_sql:
                _write(context, _DROP_CONCURRENTLY + statements.relation(self.name), waits=True)
            else:
                _retried(context, partial(self._drop, context))

    def _drop(self, context: MigrationContext) -> None:
        connection = context.connection
        assert connection is not None
        with settled(connection):
            name = _qualified(connection, self.name)
            if name is None:
                return
            indexes = connection.scalars(
                text(
                    "SELECT n.nspname || '.' || c.relname "
                    "FROM pg_index AS i JOIN pg_index AS each USING (indrelid) "
                    "JOIN pg_class AS c ON c.oid = each.indexrelid "
                    "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
                    "WHERE i.indexrelid = to_regclass(:name) AND c.relname IN (:index, :aside) "
                    "ORDER BY c.relname"
                ),
                {
                    "name": statements.relation(name),
                    "index": name.partition(".")[2],
                    "aside": statements.aside(name.partition(".")[2]),
                },
            ).all()
        with without_lock_timeout(connection):
            for index in indexes:
                _drop_concurrently(context, connection, statements.relation(index))


_DROP_CONCURRENTLY = "DROP INDEX CONCURRENTLY IF EXISTS "


def _drop_concurrently(context: MigrationContext, connection: Connection, index: str) -> None:
    with _told(context, Unmeasured(f"dropping {index}")):
        _execute(connection, _DROP_CONCURRENTLY + index)


class Backfill(MigrateOperation):
    """Rows brought to what they should be, batch by batch."""

    def __init__(self, table: str, key: str, statement: str, passes: int) -> None:
        self.table = table
        self.key = key
        self.statement = statement
        self.passes = passes

    @classmethod
    def backfill(
        cls, operations: Operations, table: str, key: str, statement: str, *, passes: int = 1
    ) -> None:
        """Run a statement over windows of a table's key, with a commit after each.

        There is no bookkeeping: the statement must pass over rows that are right, so that a run after a
        kill goes over all windows again. The windows adapt to about 250 ms for each statement.

        :param key: a unique column of the table.
        :param statement: holds ``:first`` and ``:last``, the inclusive bounds of a window; with several
            passes also ``key % :passes = :pass``.
        :param passes: how often to go over a window, each time for some of its rows. With 8, most new row
            versions find room on the page of the old ones, which the pass before has left (HOT).
        """
        operations.invoke(cls(table, key, statement, passes))

    def run(self, context: MigrationContext) -> None:
        """Go over the table once, up to the largest key that it had at the start."""
        with context.autocommit_block():
            if context.as_sql:
                self._write(context)
            else:
                self._fill(context)

    def _write(self, context: MigrationContext) -> None:
        elsewhere = context.config and context.config.attributes.get(FILLED_ELSEWHERE)
        if elsewhere:
            _write(
                context,
                statements.refuse_unfilled(
                    self.table, self.key, self.statement, _REFUSAL_WINDOW_ROWS, elsewhere
                ),
            )
            return
        script = statements.backfill_script(
            self.table, self.key, self.statement, _SCRIPT_WINDOW_ROWS, self.passes
        )
        _write(context, script, waits=True)

    def _fill(self, context: MigrationContext) -> None:
        connection = context.connection
        assert connection is not None
        table, key = statements.relation(self.table), statements.identifier(self.key)
        with settled(connection):
            first = connection.scalar(text(f"SELECT {key} FROM {table} ORDER BY {key} LIMIT 1"))
            end = connection.scalar(text(f"SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT 1"))
            estimate = connection.scalar(
                text("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(:name)"), {"name": table}
            )
        window = text(
            "SELECT max(position), (array_agg(bound ORDER BY position DESC))[1] FROM ("
            f"SELECT {key} AS bound, row_number() OVER (ORDER BY {key}) AS position FROM {table} "
            f"WHERE {key} >= :first ORDER BY {key} LIMIT :rows) AS window_rows"
        )
        following = text(
            f"SELECT {key} FROM {table} WHERE {key} > :last AND {key} <= :end ORDER BY {key} LIMIT 1"
        )
        rows, changed = _FIRST_BATCH_ROWS * self.passes, 0
        with Progress(f"filling {self.table}", estimate or 0) as progress:
            while first is not None:
                with settled(connection):
                    count, last = connection.execute(window, {"first": first, "rows": rows}).one()
                if last is None:  # the rest was deleted meanwhile
                    break
                started = time.monotonic()
                changed_here, statements_run = self._fill_window(context, connection, first, last)
                changed += changed_here
                rows = _adapted(rows, (time.monotonic() - started) / statements_run, self.passes)
                progress.advance(count)
                with settled(connection):
                    first = connection.scalar(following, {"last": last, "end": end})
        if changed:
            log.info("  %s: %d rows filled", self.table, changed)

    def _fill_window(
        self, context: MigrationContext, connection: Connection, first: Any, last: Any
    ) -> tuple[int, int]:
        """Give the rows changed and the statements that it took."""
        changed = 0
        for number in range(self.passes):
            bounds = {"first": first, "last": last, "passes": self.passes, "pass": number}
            changed += self._run(context, connection, bounds)
            if number == 0 and changed == 0 and self.passes > 1:
                # Perhaps nothing is to be done here: the rest in one go.
                bounds |= {"passes": 1, "pass": 0}
                return self._run(context, connection, bounds), 2
        return changed, self.passes

    def _run(self, context: MigrationContext, connection: Connection, bounds: dict[str, Any]) -> int:
        names = {name: value for name, value in bounds.items() if f":{name}" in self.statement}

        def execute() -> int:
            with settled(connection):
                return connection.execute(text(self.statement), names).rowcount

        return _retried(context, execute)


def _adapted(rows: int, seconds: float, passes: int) -> int:
    """Give the rows of the next window, from the seconds that a statement on the last one took."""
    factor = max(0.25, min(2.0, _BATCH_SECONDS / max(seconds, 0.001)))
    return max(100, min(_LARGEST_BATCH_ROWS * passes, int(rows * factor)))


def _refuse_references(table: str, columns: str) -> None:
    """Neither can the temporary clone have such a key, nor would an existing table get it."""
    if re.search(r"\bREFERENCES\b", re.sub(r"""'[^']*'|"[^"]*\"""", "", columns), re.IGNORECASE):
        raise MigrationError(
            f"the columns of {table} cannot be declared with REFERENCES.",
            happened="a foreign key stands in the column list, where a table that exists would not get it.",
            unchanged="the table.",
            next_step="declare the key with op.create_foreign_key_not_valid and op.validate_constraint.",
        )


def _write(context: MigrationContext, sql: str, *, waits: bool = False) -> None:
    """Write a statement into a script, without lock_timeout where it may wait as `_run` lets it."""
    timeout_ms = context.opts.get("online_script_lock_timeout_ms")
    lifted = waits and timeout_ms is not None
    if lifted:
        context.impl.static_output("SET lock_timeout = 0;\n")
    context.impl.static_output(f"{sql};\n")
    if lifted:
        context.impl.static_output(f"SET lock_timeout = {timeout_ms};\n")


def _run(context: MigrationContext, sql: str, *, waits: bool = False) -> None:
    """Run a statement; where it may wait, lock_timeout is off, since nobody queues behind it for long."""
    connection = context.connection
    assert connection is not None

    def execute() -> None:
        with settled(connection, waits=waits):
            _execute(connection, sql)

    _retried(context, execute)


@contextmanager
def _told(context: MigrationContext, step: Observed) -> Iterator[None]:
    """Have whoever watches the run tell how far a long statement is."""
    watch: Watch | None = context.opts.get("online_watch")
    with watch.telling(step) if watch else nullcontext():
        yield


def _qualified(connection: Connection, name: str) -> Any:
    """Give a relation's name, with its schema before a dot and unquoted; None where there is none."""
    return connection.scalar(
        text(
            "SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n "
            "ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:name)"
        ),
        {"name": statements.relation(name)},
    )


def _execute(connection: Connection, sql: str) -> None:
    # Without this a % in the statement would start a parameter.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def _retried(context: MigrationContext, execute: Callable[[], Result]) -> Result:
    run: Patience = context.opts.get("online_patience") or Patience(Options())
    patience = Patience(run.options, run.blocker)
    while True:
        try:
            return execute()
        except DBAPIError as error:
            patience.failed(error)


def _implement(operations: Operations, operation: Any) -> None:
    context = operations.migration_context
    if context.environment_context is not None and context.opts.keys().isdisjoint(_OF_A_RUN):
        _refuse(context)
    operation.run(context)


def _refuse(context: MigrationContext) -> NoReturn:
    """Stop an ``env.py`` that runs the migrations itself, in one transaction or in somebody else's.

    Nothing would have looked at the whole plan first, no lock would be given back to those who wait behind
    it, and a second migrator would go to work beside this one.
    """
    env_file = Path(context.script.dir if context.script is not None else "", "env.py")
    error = MigrationError(
        "these revisions cannot run under this env.py.",
        happened="it runs them by itself, so that nobody sees to locks, retries, a second migrator, or to "
        "what a downgrade would lose.",
        unchanged="all of this revision; the transaction under way is rolled back.",
        next_step=(
            f"in {env_file}, in place of everything from `if context.is_offline_mode():` on, write",
            "from workflow_models.migrations import run_env",
            'run_env(config.get_main_option("sqlalchemy.url"), target_metadata=target_metadata)',
        ),
    )
    if context.config is None or context.config.cmd_opts is None:
        raise error
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)


for _operation in (Step, ConcurrentIndex, DropConcurrentIndex, Backfill):
    for _name, _attribute in vars(_operation).items():
        if isinstance(_attribute, classmethod):
            Operations.register_operation(_name)(_operation)
    Operations.implementation_for(_operation)(_implement)
