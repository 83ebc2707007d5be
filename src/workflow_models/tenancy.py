"""Sessions that see and write the rows of one tenant.

A session is bound to a user or, in a worker, to an organization::

    Sessions = TenantSessionmaker(engine)

    with Sessions(user=user_id) as session: ...  # role authenticated
    with Sessions.begin(organization=organization_id) as session: ...  # role workflow_worker

`AsyncTenantSessionmaker` is the same for asyncio.

Each transaction begins with one statement, which sets role and identity for this transaction only and checks
them: nothing outlives it, in the pool or behind a pooler. Whatever cannot be confined is refused with a
`TenancyError`, before a statement of the caller runs.

Row-level security decides what is seen. Each ORM SELECT, UPDATE and DELETE names the tenant's organization
besides, which is what lets the database use its index.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

from sqlalchemy import (
    Connection,
    Engine,
    RootTransaction,
    Row,
    ScalarSelect,
    Uuid,
    event,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from workflow_models.access import USER, WORKER
from workflow_models.definition import WorkflowDefinition
from workflow_models.errors import (
    AmbiguousTenantError,
    AutocommitError,
    MalformedTenantError,
    MissingTenantError,
    OutdatedSchemaError,
    RoleNotGrantedError,
    RowSecurityBypassedError,
    UnknownOrganizationError,
    UnknownUserError,
    UnreachableDatabaseError,
    UnsupportedSessionError,
    UserWithoutOrganizationError,
)
from workflow_models.execution_log import WorkflowExecutionLog

if TYPE_CHECKING:
    from workflow_models.tenancy_asyncio import AsyncTenantSession as AsyncTenantSession
    from workflow_models.tenancy_asyncio import AsyncTenantSessionmaker as AsyncTenantSessionmaker

# The privilege to take a role.
_MAY_SET = """CASE WHEN pg_catalog.current_setting('server_version_num')::integer < 160000
    THEN 'MEMBER' ELSE 'SET' END"""

# Both forms of the claims are set, and what is not this tenant's is emptied: a value that a role, a database
# or somebody's SET has left cannot win.
#
# The rights to call a function are checked when a statement starts, here still those of the login. So what
# only the role may call is called in a statement of its own, which ts_stat() runs in the same round trip. It
# may take another role, so what follows it in the list is asked of that.
_ENTER = text(f"""
    SELECT
        session_user AS login,
        entered.role IS NOT NULL AS has_role,
        ARRAY(
            SELECT word
            FROM pg_catalog.ts_stat(
                CASE WHEN entered.role IS NOT NULL THEN CAST(:lookup AS pg_catalog.text) END
            )
        ) AS standing,
        current_user AS role,
        pg_catalog.has_column_privilege(
            'public.workflow_execution_logs', 'organization_id', 'SELECT'
        ) AS may_read,
        pg_catalog.row_security_active('public.workflow_definitions')
            AND pg_catalog.row_security_active('public.workflow_execution_logs') AS is_confined
    FROM (
        SELECT
            pg_catalog.set_config('request.jwt.claim.sub', :subject, true),
            pg_catalog.set_config('request.jwt.claims', :claims, true),
            pg_catalog.set_config('workflow.caller', '', true),
            pg_catalog.set_config('workflow.organization_id', :organization, true),
            CASE WHEN pg_catalog.pg_has_role(session_user, CAST(:role AS pg_catalog.name), {_MAY_SET})
                THEN pg_catalog.set_config('role', :role, true) END AS role
        OFFSET 0
    ) AS entered
""")

_ORGANIZATION = "organization="
_ROLE = "role="
# Each gives what is known of the caller as words; no row where nothing is.
#
# What is found of a user is sealed, so that no later statement looks it up again.
_USER_LOOKUP = f"""
    SELECT pg_catalog.array_to_tsvector(pg_catalog.array_remove(ARRAY[
        'known',
        '{_ORGANIZATION}' || caller[1],
        CASE WHEN caller[2] = 'super_admin' THEN 'super_admin' END,
        {{take_role}}
    ], NULL))
    FROM (SELECT workflow_private.sealed_identity() OFFSET 0) AS asked (sealed)
    CROSS JOIN LATERAL (
        SELECT
            pg_catalog.set_config('workflow.caller', coalesce(sealed, ''), true),
            coalesce(pg_catalog.substr(sealed, 65)::pg_catalog.text[], workflow_private.identity())
        OFFSET 0
    ) AS found (known, caller)
    WHERE known IS NOT NULL AND caller IS NOT NULL
"""
# Planned each time, and not for nothing: only where it is asked for.
_TAKE_ROLE = f"""
    CASE WHEN caller[2] = 'super_admin' THEN (
        SELECT '{_ROLE}' || pg_catalog.set_config('role', rolname, true) FROM pg_catalog.pg_roles
        WHERE rolname = {{role}} AND pg_catalog.pg_has_role(session_user, oid, {_MAY_SET})
    ) END
"""
_WORKER_LOOKUP = """
    SELECT pg_catalog.array_to_tsvector(ARRAY['known'])
    WHERE workflow_private.worker_organization_exists()
"""

# A schema, table, column, function, role or grant that is not there.
_OUTDATED = {"3F000", "42P01", "42703", "42883", "42704", "42501"}

_MODELS = (WorkflowDefinition, WorkflowExecutionLog)


@lru_cache(maxsize=256)
def _criteria(organization: UUID) -> tuple[ExecutableOption, ...]:
    """Options by which a statement names the organization, as a parameter."""
    # In a SELECT: its plan then does not depend on who asks, and Python cannot evaluate it for an UPDATE or
    # a DELETE, of which only the database knows the rows.
    own = select(literal(organization, Uuid())).scalar_subquery()
    # Not propagated: the load of a relationship is a statement too, and gets its own. A lambda, since an
    # expression is not adapted to the alias on the right of an outer join.
    return tuple(
        with_loader_criteria(
            model,
            lambda entity: entity.organization_id == own,
            include_aliases=True,
            propagate_to_loaders=False,
        )
        for model in _MODELS
    )


# For statements of the caller's. A scalar subquery is asked once a statement, a bare function once a row.
_OWN_ORGANIZATION = {
    role: select(literal_column(organization, Uuid())).scalar_subquery()
    for role, organization in (
        (USER, "(workflow_private.identity())[1]::uuid"),
        (WORKER, "workflow_private.worker_organization()"),
    )
}


class TenantSession(Session):
    """A `Session` of one user or of one organization, for as long as it lives.

    It may be committed, rolled back, closed and used again: each of its transactions is the tenant's. It is
    bound to one `Engine`; a `Connection` might be in a transaction that goes on after the session.

    :param user: id of a profile, a `UUID` or its text. The session acts as ``authenticated``.
    :param organization: id of an organization, likewise. The session acts as ``workflow_worker``.
    :param every_organization: for super admins: statements name no organization, so that they reach all rows
        that row-level security allows. Without it a super admin reaches the rows of the own organization.
    :param super_admin_role: the role that a super admin then acts as, in place of ``authenticated``; see "A
        role of their own for super admins" in docs/performance.md.
    :param options: those of `Session`, except for ``binds`` and ``twophase``.
    :raises TenancyError: MissingTenantError, AmbiguousTenantError, MalformedTenantError or
        UnsupportedSessionError at once; the others when a transaction begins, that is at its first statement.
    """

    def __init__(
        self,
        bind: Engine,
        *,
        user: UUID | str | None = None,
        organization: UUID | str | None = None,
        every_organization: bool = False,
        super_admin_role: str | None = None,
        **options: Any,
    ) -> None:
        self._tenant = _tenant(user, organization, every_organization, super_admin_role)
        if not isinstance(bind, Engine) or options.get("binds"):
            raise _unsupported("to be bound to something else than one Engine")
        self._engine = _TenantEngine(bind, self._tenant)
        super().__init__(self._engine, **options)

    @property
    def user(self) -> UUID | None:
        """The user; None in a session of a worker."""
        return self._tenant.id if self._tenant.role == USER else None

    @property
    def organization(self) -> UUID | None:
        """The organization of a worker; None in a user's session, where the database knows it."""
        return self._tenant.id if self._tenant.role == WORKER else None

    @property
    def every_organization(self) -> bool:
        return self._tenant.every_organization

    @property
    def own_organization(self) -> ScalarSelect[UUID]:
        """SQL for the tenant's organization, which for a user only the database knows.

        A value for a new row, or a condition on a table that the session does not know.
        """
        return _OWN_ORGANIZATION[self._tenant.role]

    def get_bind(self, *arguments: Any, bind: Any = None, **options: Any) -> Engine | Connection:
        """The session's one bind.

        :raises UnsupportedSessionError: when another one is asked for.
        """
        if self.bind is not self._engine or bind not in (None, self._engine):
            raise _unsupported("to use another bind")
        return super().get_bind(*arguments, **options)

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        bind = self.get_bind(**(bind_arguments or {}))
        return super().connection({"bind": bind}, execution_options)

    def bind_mapper(self, mapper: Any, bind: Any) -> NoReturn:
        """:raises UnsupportedSessionError: always; there is one bind."""
        raise _unsupported("to use another bind")

    def bind_table(self, table: Any, bind: Any) -> NoReturn:
        """:raises UnsupportedSessionError: always; there is one bind."""
        raise _unsupported("to use another bind")


class TenantSessionmaker(sessionmaker[TenantSession]):
    """A `sessionmaker` whose sessions are each opened for a user or an organization.

    :param options: those of `Session`, as for `sessionmaker`, and ``super_admin_role``.
    """

    def __init__(self, bind: Engine, **options: Any) -> None:
        super().__init__(bind, class_=TenantSession, **options)

    def __call__(
        self,
        *,
        user: UUID | str | None = None,
        organization: UUID | str | None = None,
        every_organization: bool = False,
        **options: Any,
    ) -> TenantSession:
        """Open a `TenantSession`."""
        tenant = {"user": user, "organization": organization, "every_organization": every_organization}
        return super().__call__(**tenant, **options)

    def begin(
        self,
        *,
        user: UUID | str | None = None,
        organization: UUID | str | None = None,
        every_organization: bool = False,
    ) -> AbstractContextManager[TenantSession]:
        """Open one with a transaction, which is committed unless an exception ends the block."""
        tenant = {"user": user, "organization": organization, "every_organization": every_organization}
        return sessionmaker(class_=self.class_, **{**self.kw, **tenant}).begin()


def __getattr__(name: str) -> Any:
    # SQLAlchemy's asyncio needs greenlet, which a service without asyncio does not have.
    if name in ("AsyncTenantSession", "AsyncTenantSessionmaker"):
        return getattr(importlib.import_module("workflow_models.tenancy_asyncio"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@event.listens_for(TenantSession, "do_orm_execute")
def _name_the_organization(execution: ORMExecuteState) -> None:
    """Let a statement name the organization: policies that serve super admins too cannot use its index."""
    tenant = execution.session._tenant  # type: ignore[attr-defined]
    if execution.is_orm_statement and not execution.is_insert and not tenant.every_organization:
        connection = cast("_TenantConnection", execution.session.connection(execution.bind_arguments))
        execution.statement = execution.statement.options(*connection.criteria())


class _TenantEngine(OptionEngine):
    """The service's engine and pool; what is done on its connections is done as the tenant."""

    def __init__(self, engine: Engine, tenant: _Tenant) -> None:
        super().__init__(engine, {})
        self.tenant = tenant

    def connect(self) -> Connection:
        try:
            return _TenantConnection(self)
        # OSError is asyncpg's, where nothing listens.
        except (DBAPIError, OSError) as error:
            raise _unreachable() from error


class _TenantConnection(Connection):
    """Begins each transaction as the tenant, whoever begins it.

    Not an event of the session: where one fails, the session goes on with a connection that is the login's.
    """

    engine: _TenantEngine
    _criteria: tuple[ExecutableOption, ...] = ()

    def criteria(self) -> tuple[ExecutableOption, ...]:
        """Give what makes a statement name the organization; begins the transaction, which knows it."""
        if not self.in_transaction():
            self.begin()
        return self._criteria

    def begin(self) -> RootTransaction:
        transaction = super().begin()
        try:
            organization = self.engine.tenant.enter(self)
        except BaseException:
            transaction.rollback()
            raise
        self._criteria = _criteria(organization) if organization else ()
        return transaction

    def begin_twophase(self, xid: Any = None) -> NoReturn:
        raise _unsupported("to commit in two phases")


@dataclass(frozen=True)
class _Tenant:
    role: str
    id: UUID
    every_organization: bool
    # Taken in place of `role` by a super admin who asks for every organization.
    super_admin_role: str | None

    def enter(self, connection: Connection) -> UUID | None:
        """Take the role and the identity for the transaction that begins on this connection.

        :returns: the tenant's organization; None where a super admin has none, and reaches every one.
        :raises TenancyError: when that is not possible; the transaction is then to be rolled back.
        """
        driver = connection.connection.dbapi_connection
        if driver is None or connection.dialect.detect_autocommit_setting(driver):
            raise AutocommitError(
                "the connection is in autocommit mode, where role and identity end with each statement.",
                next_step="give the session an engine without isolation_level='AUTOCOMMIT'.",
            )
        try:
            found = connection.execute(_ENTER, self._parameters()).one()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise _unreachable() from error
            if getattr(error.orig, "sqlstate", None) in _OUTDATED:
                raise _outdated() from error
            raise
        self._check(found, connection)
        return self._organization(found.standing)

    def _parameters(self) -> dict[str, str]:
        is_user = self.role == USER
        return {
            "role": self.role,
            "lookup": self._lookup(),
            "subject": str(self.id) if is_user else "",
            "claims": json.dumps({"sub": str(self.id), "role": self.role}) if is_user else "",
            "organization": "" if is_user else str(self.id),
        }

    def _lookup(self) -> str:
        if self.role == WORKER:
            return _WORKER_LOOKUP
        if not (self.every_organization and self.super_admin_role):
            return _USER_LOOKUP.format(take_role="NULL")
        quoted = self.super_admin_role.replace("'", "''")
        return _USER_LOOKUP.format(take_role=_TAKE_ROLE.format(role=f"'{quoted}'"))

    def _check(self, found: Row[Any], connection: Connection) -> None:
        if not found.has_role:
            raise _role_not_granted(connection, found.login, self.role)
        if not found.may_read:
            raise _outdated()
        if not found.is_confined:
            raise RowSecurityBypassedError(
                f"row-level security does not hold for {found.role} on both workflow tables.",
                next_step=f"take SUPERUSER, BYPASSRLS and the tables' owner from {found.role}; then run "
                "`workflow-models upgrade`, which switches row-level security on.",
            )
        self._check_standing(found.standing)
        role = self.super_admin_role
        if role and self._sees_every_organization(found.standing) and _ROLE + role not in found.standing:
            raise _role_not_granted(connection, found.login, role)

    def _check_standing(self, standing: Sequence[str]) -> None:
        if "known" not in standing and self.role == WORKER:
            raise UnknownOrganizationError(
                f"there is no organization {self.id}.",
                next_step="pass the id of a row of organizations.",
            )
        if "known" not in standing:
            raise UnknownUserError(
                f"there is no profile of the user {self.id}.",
                next_step="pass the id of a row of profiles, which is the `sub` of the user's token.",
            )
        if self._organization(standing) is None and not self._sees_every_organization(standing):
            raise UserWithoutOrganizationError(
                f"the profile of the user {self.id} names no organization.",
                next_step="give the profile an organization; a super admin without one needs "
                "every_organization=True.",
            )

    def _sees_every_organization(self, standing: Sequence[str]) -> bool:
        return self.every_organization and "super_admin" in standing

    def _organization(self, standing: Sequence[str]) -> UUID | None:
        if self.role == WORKER:
            return self.id
        named = [word.removeprefix(_ORGANIZATION) for word in standing if word.startswith(_ORGANIZATION)]
        return UUID(named[0]) if named else None


def _tenant(
    user: UUID | str | None,
    organization: UUID | str | None,
    every_organization: bool,
    super_admin_role: str | None,
) -> _Tenant:
    if user is None and organization is None:
        raise MissingTenantError(
            "a tenant session was to be opened for nobody.",
            next_step="pass user=, or in a worker organization=.",
        )
    if user is not None and organization is not None:
        raise AmbiguousTenantError(
            "a tenant session was to be opened for a user and an organization at once.",
            next_step="pass user= or organization=; the organization of a user is that of the profile.",
        )
    if every_organization and user is None:
        raise AmbiguousTenantError(
            "a worker's session was to be opened for every organization.",
            next_step="pass the user= of a super admin, or leave every_organization out.",
        )
    if user is not None:
        return _Tenant(USER, _uuid("user", user), every_organization, super_admin_role)
    return _Tenant(WORKER, _uuid("organization", organization), every_organization, super_admin_role)


def _uuid(name: str, value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(cast("str", value))
    except (ValueError, TypeError, AttributeError):
        raise MalformedTenantError(
            f"{name} is not a UUID: {value!r}.", next_step=f"pass the {name}'s id as a UUID or its text."
        ) from None


def _role_not_granted(connection: Connection, login: str, role: str) -> RoleNotGrantedError:
    quote = connection.dialect.identifier_preparer.quote
    return RoleNotGrantedError(
        f"the login {login} may not take the role {role}.",
        next_step=f"let an administrator run: GRANT {quote(role)} TO {quote(login)};",
    )


def _unsupported(what: str) -> UnsupportedSessionError:
    return UnsupportedSessionError(
        f"a tenant session was asked {what}.",
        next_step="bind it to one Engine; use a plain Session for anything else, whose role is the login's.",
    )


def _unreachable() -> UnreachableDatabaseError:
    return UnreachableDatabaseError(
        "the database cannot be reached, or closed the connection.",
        next_step="see that it runs and that the engine's URL is right; then try the transaction again.",
    )


def _outdated() -> OutdatedSchemaError:
    return OutdatedSchemaError(
        "the database lacks a table, column, function, role or grant of the models.",
        next_step="run `workflow-models upgrade` on it.",
    )
