"""What an ``env.py`` calls: one run of an Alembic command, against a live database or as a script.

Online: one migrator at a time; the plan is resolved once and refused as a whole or not at all; each try
has a connection of its own; lock failures are tried again with what is left of the plan.
"""

import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, RevisionStep, StampStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple
from sqlalchemy import URL, Connection, Engine, MetaData, event, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from . import statements
from .errors import MigrationError, RunInterruptedError
from .locks import LocksNotAcquiredError, Patience, Watch, only_migrator, sqlstate
from .options import Options, read_options
from .plan import created, downgrade_checks, lacking_privileges, refuse_downgrade, refuse_upgrade
from .session import SETTINGS, backend_pid, behind_pooler, create_session_engine, milliseconds

log = getLogger(__name__)

VERSION_TABLE = "alembic_version"


@dataclass(frozen=True)
class Target:
    """What a run migrates.

    :param url: the database; None where only a script is written.
    :param metadata: what autogenerate compares the database with.
    :param version_table_schema: holds the version table; created by an upgrade.
    :param guest: a branch label, where the chain is somebody else's and the revisions under that label are
        its guests. ``configure`` then names the version table, and a copy of the guests' own revision is
        kept where it is without a host: whoever asks for it need not know of one.
    :param search_path: pinned for the whole run, so that neither names nor printed expressions depend
        on the role or the database.
    :param declared: names of what the models put on tables, by table: it is nobody else's.
    :param state: a query for one text that says what an upgrade found, printed at its start.
    :param warnings: queries for texts that upgrade and check print as warnings.
    :param configure: further arguments for Alembic's ``context.configure()``.
    """

    url: URL | None
    metadata: MetaData | Sequence[MetaData] | None
    version_table_schema: str
    search_path: str
    declared: Mapping[str, Sequence[str]] = field(default_factory=dict)
    state: str | None = None
    warnings: Sequence[str] = ()
    configure: Mapping[str, Any] = field(default_factory=dict)
    guest: str | None = None

    @property
    def version_options(self) -> dict[str, str | None]:
        """Where Alembic keeps the revision of a database, as options of ``context.configure()``."""
        names = self.configure if self.guest else {"version_table_schema": self.version_table_schema}
        return {
            "version_table_schema": names.get("version_table_schema"),
            "version_table": names.get("version_table", VERSION_TABLE),
        }

    @property
    def version_table(self) -> str:
        """The name of that table, with its schema where one is named."""
        return ".".join(filter(None, self.version_options.values()))

    @property
    def own_version_table(self) -> str:
        """The name of the version table, or of its copy."""
        return f"{self.version_table_schema}.{VERSION_TABLE}"


def run(target: Callable[[Mapping[str, str]], Target], *, options_of_others: bool = False) -> None:
    """Run the Alembic command that is under way.

    :param target: gives what is to be migrated from the ``-x`` arguments. A caller from Python passes
        them as a mapping in ``Config.attributes["x"]``.
    :param options_of_others: pass over ``-x`` names that mean nothing here, instead of refusing them.
    :raises MigrationError: when called from Python; under the ``alembic`` command the error is printed
        to stderr and the exit status is its ``exit_code``.
    """
    try:
        x = {**context.config.attributes.get("x", {}), **context.get_x_argument(as_dictionary=True)}
        options = read_options(x, *([frozenset(x)] if options_of_others else []))
        if context.is_offline_mode():
            _write_script(target(x), options)
        else:
            _Run(target(x), options).execute()
    except (MigrationError, CommandError) as error:
        told = error if isinstance(error, MigrationError) else _of_alembic(error)
        if context.config.cmd_opts is None:
            raise told from error
        print(told, file=sys.stderr)
        sys.exit(told.exit_code)
    except BrokenPipeError:
        if context.config.cmd_opts is None:
            raise
        # Who reads the script, as `head` does, has seen enough; Python would try again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _of_alembic(error: CommandError) -> MigrationError:
    is_behind = "not up to date" in str(error)
    head = "heads" if len(context.script.get_heads()) > 1 else "head"
    return MigrationError(
        "Alembic cannot do that.",
        happened=str(error),
        unchanged="nothing was done.",
        next_step=f"run `alembic upgrade {head}`, then this again."
        if is_behind
        else "correct the command, or bring the database to where it can be done, and run it again.",
    )


def _write_script(target: Target, options: Options) -> None:
    script = Statements()
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # else each % is doubled
        literal_binds=True,
        **{
            **target.configure,
            **target.version_options,
            "target_metadata": target.metadata,
            "transaction_per_migration": True,
            "output_buffer": script,
            "online_script_lock_timeout_ms": options.lock_timeout_ms,
            "on_version_apply": _callbacks(target),
        },
    )
    migration_context = context.get_context()
    command = dict(migration_context.opts)
    heads = migration_context.get_current_heads()
    plan: list[Any] = list(command["fn"](heads, migration_context))
    version_table = target.version_table
    for statement in (
        # Off again only where the database is where the script starts, so that nothing is done elsewhere
        # by a client that goes on after an error.
        "SET default_transaction_read_only = on",
        statements.only_at(version_table, _names(heads)),
        f"SET lock_timeout = {options.lock_timeout_ms}",
        *(f"SET {name} = {value}" for name, value in SETTINGS.items()),
        f"SET search_path = {target.search_path}",
        *downgrade_checks(
            [step.revision for step in plan if isinstance(step, RevisionStep) and not step.is_upgrade],
            ours=created(context.script.walk_revisions(), target.declared),
            allow_data_loss=options.allow_data_loss,
        ),
        *_places_of_versions(target),
    ):
        context.static_output(f"{statement};\n")
    with context.begin_transaction():
        context.run_migrations()
    context.config.output_buffer = context.config.output_buffer or sys.stdout
    for statement in script.written:
        # Alembic takes the version table for new wherever a script starts at base.
        context.config.output_buffer.write(
            statement.replace(f"CREATE TABLE {version_table}", f"CREATE TABLE IF NOT EXISTS {version_table}")
        )
    context.config.output_buffer.flush()


class Statements(io.StringIO):
    """What Alembic writes, statement by statement, until it is known that there was no error."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)


_BUILT_STAYS = "; what the next revision had built stays and is used next time."
_UNDONE_STAYS = "; what had been undone of the next revision stays undone and is passed over next time."
_READ_ONLY, _ENDED_BY_SOMEBODY, _NOT_PERMITTED = "25006", "57P01", "42501"
_OWNER = """
    SELECT relowner::regrole::text FROM pg_class
    WHERE relnamespace::regnamespace::text || '.' || relname = :table AND relkind = 'r'
"""
_OF_A_ROW = ("23502", "23514")  # NOT NULL and CHECK


class _Run:
    def __init__(self, target: Target, options: Options) -> None:
        assert target.url is not None
        self.target = target
        self.options = options
        self.engine = create_session_engine(target.url, options, target.search_path)
        event.listen(self.engine, "connect", _show_notices)

    def execute(self) -> None:
        self.again = "run the same command again."
        self.watch: Watch | None = None
        self.stays = _BUILT_STAYS
        with _connect(self.engine) as probe, self._translated(probe):
            self.pooled = behind_pooler(probe)
            # Perhaps less than was asked for.
            self.lock_timeout_ms = probe.scalar(text(f"SELECT {milliseconds('lock_timeout')}"))
            if self.target.guest:
                self._require_search_path(probe)
            self._configure(probe, dont_mutate=True)
            command = dict(context.get_context().opts)
            if "destination_rev" not in command:
                self._read(probe, compares="revision_context" in command)
                return
            if not command["destination_rev"]:
                raise CommandError("no revision is named: the text that should name it is empty")
            with (
                _connect(self.engine) as guard,
                only_migrator(guard, self.target.own_version_table, self.options) as pid,
            ):
                self._move(probe, command, pid)

    def _require_search_path(self, probe: Connection) -> None:
        """Pinning another one would let revisions of the host make their tables elsewhere."""
        pinned = probe.scalar(text("SELECT current_schema()"))
        probe.execute(text("SET LOCAL search_path TO DEFAULT"))
        theirs = probe.scalar(text("SELECT current_schema()"))
        probe.rollback()
        if theirs != pinned:
            raise MigrationError(
                "these revisions cannot run with another search_path.",
                happened=f"this role creates its tables in {theirs or 'no schema'}, and the revisions of "
                f"{self.target.guest} are for {pinned}.",
                unchanged="nothing was done.",
                next_step=f"let search_path begin with {pinned} for this role, and name the schema in the "
                "other models and revisions, and as version_table_schema; or keep the chains apart.",
            )

    def _read(self, connection: Connection, *, compares: bool) -> None:
        """Run a command that changes nothing: current, check, revision."""
        self._known_heads(context.get_context())
        if compares:
            self._warn(connection)
        connection.rollback()
        with context.begin_transaction():
            context.run_migrations()

    def _move(self, probe: Connection, command: dict[str, Any], guard: int) -> None:
        migration_context = context.get_context()
        heads = self._known_heads(migration_context)
        plan: list[Any] = list(command["fn"](heads, migration_context))
        steps = [step for step in plan if isinstance(step, RevisionStep)]
        at = _names(heads)
        if steps and re.search(r"[+-]\d+$", str(command["destination_rev"])):
            self.again = f"run `alembic {_absolute(steps[-1])}`."
        if steps and not steps[0].is_upgrade:
            self.stays = _UNDONE_STAYS
        if not plan:
            self._warn(probe)
            log.info("nothing to do: the database is at %s", at)
            return
        refuse_upgrade(
            probe,
            [step.revision for step in steps if step.is_upgrade],
            at,
            applied=context.script.iterate_revisions(heads, "base") if heads else (),
        )
        refuse_downgrade(
            probe,
            [step.revision for step in steps if not step.is_upgrade],
            at,
            ours=created(context.script.walk_revisions(), self.target.declared),
            allow_data_loss=self.options.allow_data_loss,
        )
        if any(isinstance(step, StampStep) for step in plan):
            log.warning(
                "warning: a stamp only writes down where the database is to be; nothing in it is looked at, "
                "or mended, as `alembic upgrade` does. `alembic stamp %s` takes it back.",
                at.replace(",", ""),
            )
        if self.pooled:
            log.warning(
                "warning: this goes through a pooler, whose own timeouts hold for concurrent index builds; "
                "migrate through a direct connection where there is one."
            )
        if steps and steps[0].is_upgrade:
            state = probe.scalar(text(self.target.state)) if self.target.state and not heads else at
            log.info("from: %s", state)
            self._warn(probe)
        probe.rollback()
        self.watch = Watch(self.engine, guard)
        with self.watch.running() as watch:
            patience = Patience(self.options, watch.seen)
            while plan:
                with _connect(self.engine) as connection:
                    for statement in _places_of_versions(self.target):
                        connection.exec_driver_sql(statement)
                    connection.commit()
                    watch.watch(backend_pid(connection))
                    try:
                        self._apply(connection, plan, patience, watch)
                        plan = []
                    except DBAPIError as error:
                        connection.rollback()
                        left = _left(plan, self._heads(probe), migration_context)
                        if len(left) < len(plan):
                            patience.failures = 0
                        plan = left
                        patience.failed(error)
                    except CommandError as error:
                        connection.rollback()
                        left = _left(plan, self._heads(probe), migration_context)
                        stopped = next(step.revision for step in left if isinstance(step, RevisionStep))
                        raise MigrationError(
                            f"{stopped.revision} stops by itself.",
                            happened=str(error),
                            unchanged=f"{self._boundary(probe)}.",
                            next_step=f"settle that in {stopped.path}, take out its `raise`, "
                            f"then {self.again}",
                        ) from error

    def _apply(self, connection: Connection, plan: list[Any], patience: Patience, watch: Watch) -> None:
        started = time.monotonic()

        def tell(*, step: Any, **_: Any) -> None:
            nonlocal started
            names = _names(step.up_revision_ids)
            log.info("%s %s (%.1f s)", "+" if step.is_upgrade else "-", names, time.monotonic() - started)
            started = time.monotonic()

        self._configure(
            connection,
            fn=lambda _heads, _context: plan,
            dont_mutate=False,
            on_version_apply=(tell, *_callbacks(self.target)),
            online_patience=patience,
            online_watch=watch,
        )
        with context.begin_transaction():
            context.run_migrations()

    def _configure(self, connection: Connection, **arguments: Any) -> None:
        connection.commit()  # Alembic would take an open transaction for somebody else's, and never commit
        context.configure(
            connection=connection,
            **{
                **self.target.configure,
                **self.target.version_options,
                "target_metadata": self.target.metadata,
                "transaction_per_migration": True,
                **arguments,
            },
        )

    def _warn(self, connection: Connection) -> None:
        """Tell what is amiss, also what has become so since the revisions were applied; refuse nothing."""
        for query in self.target.warnings:
            for warning in connection.scalars(text(query)):
                log.warning("warning: %s", warning)
        heads = self._heads(connection)
        applied = context.script.iterate_revisions(heads, "base") if heads else ()
        for happened, next_step in lacking_privileges(connection, applied):
            log.warning("warning: %s Run: %s", happened, next_step)

    def _heads(self, connection: Connection) -> tuple[str, ...]:
        version = MigrationContext.configure(connection, opts=self.target.version_options)
        heads = version.get_current_heads()
        connection.rollback()
        return heads

    def _known_heads(self, migration_context: MigrationContext) -> tuple[str, ...]:
        heads = migration_context.get_current_heads()
        script = context.script
        known = {revision.revision for revision in script.walk_revisions()}
        unknown = sorted(set(heads) - known)
        if unknown:
            raise MigrationError(
                f"the database is at {_names(unknown)}, which these revisions do not know.",
                happened=f"the newest revision here is {_names(script.get_heads())}.",
                unchanged="nothing was done.",
                next_step="run this with the version of the package that made that revision, or a newer one.",
            )
        return heads

    @contextmanager
    def _translated(self, probe: Connection) -> Iterator[None]:
        """Turn errors of the database into what happened, what stayed and what to do next."""
        try:
            yield
        except LocksNotAcquiredError as error:
            at = self._boundary(probe)
            raise MigrationError(
                "the locks for the next step could not be had.",
                happened=f"{error.tries} tries of {self.lock_timeout_ms} ms; "
                f"{error.blocker or 'who held the lock was gone before it could be seen'}.",
                unchanged=f"{at}{self.stays}",
                next_step=f"end that transaction, then {self.again}",
            ) from error
        except (DBAPIError, PendingRollbackError, KeyboardInterrupt) as failure:
            # Leaving blocks after the connection is gone hides what ended it.
            cause: BaseException | None = failure
            while cause is not None and not isinstance(cause, DBAPIError | KeyboardInterrupt):
                cause = cause.__context__
            if cause is None:
                raise
            if isinstance(cause, KeyboardInterrupt):
                raise RunInterruptedError(
                    "interrupted.",
                    happened="the run was ended from the keyboard.",
                    unchanged=f"{self._boundary(probe)}{self.stays}",
                    next_step=self.again,
                ) from failure
            raise MigrationError(
                "the database refused a statement.",
                happened=self._what_happened(cause),
                unchanged=f"{self._boundary(probe)}{self.stays if self.watch else '.'}",
                next_step=f"{self._remedy(cause, probe)}{self.again}",
            ) from failure

    def _what_happened(self, cause: DBAPIError) -> str:
        if self.watch and self.watch.lock_is_lost:
            return (
                f"the process that held the migrators' lock (pid {self.watch.guard}) was ended, and this run "
                "with it, so that no other one works beside it."
            )
        return _message(cause)

    def _owner_of_versions(self, probe: Connection) -> str | None:
        """Where this role may not even ask at which revision the database is."""
        try:
            probe.rollback()
            owner: str | None = probe.scalar(text(_OWNER), {"table": self.target.own_version_table})
            self._heads(probe)
        except DBAPIError:
            return owner
        return None

    def _remedy(self, cause: DBAPIError, probe: Connection) -> str:
        state = sqlstate(cause)
        # A statement outside of a transaction has the role's own statement_timeout there.
        if self.pooled and state == "57014":
            why = "where no timeout can be set for this"
            return f"connect to the server itself and not to the pooler, {why}, then "
        if state == _READ_ONLY:
            return (
                "connect to a primary, to a database and as a role for which default_transaction_read_only "
                "is off, then "
            )
        if state == _NOT_PERMITTED and (owner := self._owner_of_versions(probe)):
            return f"connect as {owner}, who migrates this database, or as a member of that role; then "
        return "" if state == _ENDED_BY_SOMEBODY else "mend that, then "

    def _boundary(self, probe: Connection) -> str:
        try:
            probe.rollback()
            return f"the database is at {_names(self._heads(probe))}"
        except DBAPIError:
            return "the database is at the last revision reported above" if self.watch else "nothing was done"


def _places_of_versions(target: Target) -> Iterator[str]:
    # IF NOT EXISTS would ask for the privilege to create one where there is one.
    schema = target.version_table_schema
    yield (
        f"DO $schema$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF; "
        "END $schema$"
    )
    if target.guest:
        # As Alembic would make it.
        yield (
            f"CREATE TABLE IF NOT EXISTS {target.own_version_table} (version_num varchar(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )


def _callbacks(target: Target) -> tuple[Callable[..., None], ...]:
    return (partial(_copy_version, target),) if target.guest else ()


def _copy_version(target: Target, *, ctx: MigrationContext, heads: Iterable[str], **_: Any) -> None:
    """Write down, in the transaction of a step, at which of its revisions a guest is.

    Alembic's own table does not say so once a revision of the host depends on one of the guest.
    """
    applied = [
        revision
        for revision in (context.script.iterate_revisions(tuple(heads), "base") if heads else ())
        if target.guest in revision.branch_labels
    ]
    passed = {down for revision in applied for down in to_tuple(revision.down_revision, default=())}
    ctx.execute(f"DELETE FROM {target.own_version_table}")
    for revision in applied:
        if revision.revision not in passed:
            ctx.execute(f"INSERT INTO {target.own_version_table} VALUES ('{revision.revision}')")


def _absolute(last: RevisionStep) -> str:
    """Give the command for the end of a plan: a relative one, given again, would go further."""
    if last.is_upgrade:
        return f"upgrade {last.revision.revision}"
    return f"downgrade {_names(last.to_revisions)}"


def _left(plan: list[Any], heads: Iterable[str], migration_context: MigrationContext) -> list[Any]:
    """Give the part of a plan that has not been done yet, from what the database says."""
    script: ScriptDirectory | None = migration_context.script
    assert script is not None
    applied = (
        {revision.revision for revision in script.iterate_revisions(tuple(heads), "base")} if heads else set()
    )
    return [
        step
        for step in plan
        if not isinstance(step, RevisionStep) or (step.revision.revision in applied) != step.is_upgrade
    ]


@contextmanager
def _connect(engine: Engine) -> Iterator[Connection]:
    try:
        connection = engine.connect()
    except DBAPIError as error:
        # A query may hold a password too.
        where = {name: value for name, value in engine.url.query.items() if name in ("host", "port")}
        raise MigrationError(
            f"could not connect to {engine.url.set(query=where).render_as_string(hide_password=True)}",
            happened=_message(error),
            unchanged="nothing was done.",
            next_step="check host, port, user, password and database of the URL, and that the server runs.",
        ) from error
    with connection:
        yield connection


def _message(error: DBAPIError) -> str:
    """Give the server's own message, without statement and parameters."""
    diagnostics = getattr(error.orig, "diag", None)
    primary = getattr(diagnostics, "message_primary", None) or " ".join(str(error.orig).split())
    state = sqlstate(error)
    # What PostgreSQL adds to these is the whole row.
    detail = None if state in _OF_A_ROW else getattr(diagnostics, "message_detail", None)
    hint = getattr(diagnostics, "message_hint", None)
    return "\n".join(
        filter(None, [f"{primary} ({state})" if state else primary, detail, hint and f"hint: {hint}"])
    )


def _show_notices(driver_connection: Any, _record: Any) -> None:
    driver_connection.add_notice_handler(_show_notice)


def _show_notice(diagnostics: Any) -> None:
    if diagnostics.sqlstate == statements.NOTICE_SQLSTATE:
        log.warning("notice: %s", diagnostics.message_primary)


def _names(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions)) or "base"
