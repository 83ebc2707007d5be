"""The operation directives: ``op.…`` for changes that a live application does not notice.

Each is safe to run again, leaves alone what is already as it should be, and runs in a transaction of its
own: whatever the revision did before it is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any, TypeVar

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from . import statements
from .errors import MigrationError
from .locks import Patience
from .options import Options
from .progress import Progress

if TYPE_CHECKING:  # Alembic loads this module while that is being imported
    from alembic.runtime.migration import MigrationContext

log = getLogger(__name__)

Result = TypeVar("Result")

_FIRST_BATCH_ROWS, _LARGEST_BATCH_ROWS, _BATCH_SECONDS = 2_000, 10_000, 0.25
_SCRIPT_WINDOW_ROWS = 80_000


class Step(MigrateOperation):
    """Statements of which each is a transaction, tried again while others hold its locks."""

    def __init__(self, *sql: str, waits: bool = False) -> None:
        self.sql = sql
        self.waits = waits

    def run(self, context: MigrationContext) -> None:
        """Run, or write, the statements."""
        with context.autocommit_block():
            for sql in self.sql:
                if context.as_sql:
                    context.impl.static_output(f"{sql};\n")
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
        """
        operations.invoke(cls(statements.table(name, columns, comments, comment)))

    @classmethod
    def ensure_columns(
        cls, operations: Operations, table: str, columns: str, *, comments: Mapping[str, str]
    ) -> None:
        """Add the columns that a table lacks, and bring the others to what is declared."""
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

        :param if_referent_exists: do nothing where the referenced table does not exist.
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
        operations.invoke(cls(statements.validate(constraint_name, table), waits=True))

    @classmethod
    def create_check_where_rows_allow(
        cls, operations: Operations, constraint_name: str, table: str, column: str, condition: str
    ) -> None:
        """Add a CHECK on a column and validate it; where rows do not satisfy it, say so and leave it out."""
        operations.invoke(cls(*statements.check_where_rows_allow(constraint_name, table, column, condition)))

    @classmethod
    def set_privileges(
        cls,
        operations: Operations,
        kind: str,
        name: str,
        granted: Mapping[str, Iterable[str | tuple[str, Sequence[str]]]],
    ) -> None:
        """Give each of these roles exactly these privileges, and PUBLIC none; other roles are left alone.

        :param kind: ``TABLE``, ``SEQUENCE``, ``FUNCTION`` or ``SCHEMA``.
        :param granted: for each role its privileges; one on columns only is ``("UPDATE", [columns])``.
        """
        operations.invoke(cls(statements.privileges(kind, name, granted)))


class ConcurrentIndex(MigrateOperation):
    """An index, built while writers go on."""

    def __init__(
        self, name: str, table: str, columns: Sequence[str | TextClause], unique: bool, where: str | None
    ) -> None:
        self.name = name
        self.table = table
        self.columns = [c.text if isinstance(c, TextClause) else statements.identifier(c) for c in columns]
        self.unique = unique
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
        where: str | None = None,
    ) -> None:
        """Create an index; one of that name that is INVALID or another is dropped and built anew.

        It is built without lock_timeout: it waits for running transactions, but nobody waits for it.
        """
        operations.invoke(cls(index_name, table_name, columns, unique, where))

    def run(self, context: MigrationContext) -> None:
        """Build the index where it is not there as wanted."""
        on_clone = self._sql(on_clone=True)
        with context.autocommit_block():
            if context.as_sql:
                context.impl.static_output(
                    f"{statements.drop_different_index(self.name, self.table, on_clone)};\n"
                )
                context.impl.static_output(f"{self._sql()};\n")
                return
            connection = context.connection
            assert connection is not None
            found = self._found(connection)
            if found is not None:
                if found.valid and found.facts == self._wanted(connection, on_clone):
                    return
                if found.constraint_name:
                    _run(
                        context,
                        f"ALTER TABLE {statements.relation(self.table)} "
                        f"DROP CONSTRAINT {statements.identifier(found.constraint_name)}",
                    )
                else:
                    _run(
                        context,
                        f"DROP INDEX CONCURRENTLY {statements.beside(self.table, self.name)}",
                        waits=True,
                    )
            _run(context, self._sql(), waits=True)

    def _sql(self, *, on_clone: bool = False) -> str:
        return statements.index(
            self.name, self.table, self.columns, unique=self.unique, where=self.where, on_clone=on_clone
        )

    def _found(self, connection: Connection) -> Any:
        oid = statements.regclass(self.table)
        found = connection.execute(
            text(
                f"SELECT i.indrelid = {oid} AS on_table, i.indrelid::regclass AS table_name, "
                "i.indisvalid AS valid, "
                f"({statements.index_facts(self.name, oid)}) AS facts, "
                "(SELECT conname FROM pg_constraint WHERE conindid = c.oid AND contype IN ('p', 'u', 'x')) "
                "AS constraint_name "
                "FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid "
                "WHERE c.relname = :name "
                f"AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = {oid})"
            ),
            {"name": self.name},
        ).one_or_none()
        if found is not None and not found.on_table:
            raise MigrationError(
                f"the index {self.name} cannot be built.",
                happened=f"an index of that name stands on {found.table_name}.",
                unchanged="that index.",
                next_step="rename it, then run the same command again.",
            )
        return found

    def _wanted(self, connection: Connection, on_clone: str) -> str | None:
        clone = statements.clone(self.table)
        _execute(connection, f"CREATE TEMPORARY TABLE {clone} (LIKE {statements.relation(self.table)})")
        try:
            _execute(connection, on_clone)
            oid = f"to_regclass({statements.literal(clone)})"
            return str(connection.scalar(text(statements.index_facts(self.name, oid))))
        finally:
            _execute(connection, f"DROP TABLE {clone}")


class DropConcurrentIndex(Step):
    """An index, dropped while writers go on."""

    @classmethod
    def drop_index_concurrently(cls, operations: Operations, index_name: str) -> None:
        """Drop an index where it exists."""
        sql = f"DROP INDEX CONCURRENTLY IF EXISTS {statements.relation(index_name)}"
        operations.invoke(cls(sql, waits=True))


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
                script = statements.backfill_script(
                    self.table, self.key, self.statement, _SCRIPT_WINDOW_ROWS, self.passes
                )
                context.impl.static_output(f"{script};\n")
            else:
                self._fill(context)

    def _fill(self, context: MigrationContext) -> None:
        connection = context.connection
        assert connection is not None
        table, key = statements.relation(self.table), statements.identifier(self.key)
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
                count, last = connection.execute(window, {"first": first, "rows": rows}).one()
                if last is None:  # the rest was deleted meanwhile
                    break
                started = time.monotonic()
                changed_here, statements_run = self._fill_window(context, connection, first, last)
                changed += changed_here
                rows = _adapted(rows, (time.monotonic() - started) / statements_run, self.passes)
                progress.advance(count)
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
        return _retried(context, partial(connection.execute, text(self.statement), names)).rowcount


def _adapted(rows: int, seconds: float, passes: int) -> int:
    """Give the rows of the next window, from the seconds that a statement on the last one took."""
    factor = max(0.25, min(2.0, _BATCH_SECONDS / max(seconds, 0.001)))
    return max(100, min(_LARGEST_BATCH_ROWS * passes, int(rows * factor)))


def _run(context: MigrationContext, sql: str, *, waits: bool = False) -> None:
    """Run a statement; where it may wait, lock_timeout is off, since nobody queues behind it for long."""
    connection = context.connection
    assert connection is not None
    if not waits:
        _retried(context, partial(_execute, connection, sql))
        return
    before = connection.scalar(text("SELECT current_setting('lock_timeout')"))
    connection.exec_driver_sql("SET lock_timeout = 0")
    try:
        _retried(context, partial(_execute, connection, sql))
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"SET lock_timeout = '{before}'")


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
    operation.run(operations.migration_context)


for _operation in (Step, ConcurrentIndex, DropConcurrentIndex, Backfill):
    for _name, _attribute in vars(_operation).items():
        if isinstance(_attribute, classmethod):
            Operations.register_operation(_name)(_operation)
    Operations.implementation_for(_operation)(_implement)
