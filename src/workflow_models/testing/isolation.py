"""Whether a query shows one tenant the row of another.

That a query shows nothing proves little: the table may be empty, the row not committed, the query wrong. So
the row is first seen as its owner. And what a login sees that is above row-level security says nothing of a
login that is not: it is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from sqlalchemy import Executable, Result, Row, ScalarResult, inspect, text
from sqlalchemy.orm import InstanceState, Mapper, Session

if TYPE_CHECKING:
    # Needs greenlet, which a service without asyncio does not have.
    from sqlalchemy.ext.asyncio import AsyncSession

    Query: TypeAlias = Executable | Callable[[Session], Any]
    AsyncQuery: TypeAlias = Executable | Callable[[AsyncSession], Awaitable[Any]]

# Whom row-level security passes over: `role` is who asks, `login` who may ask again as itself.
_ABOVE = text("""
    SELECT
        session_user::text AS login, current_user::text AS role,
        relation.relrowsecurity AS is_on,
        pg_catalog.row_security_active(relation.oid) AS is_active,
        login.rolsuper OR login.rolbypassrls
            OR pg_catalog.pg_has_role(session_user, relation.relowner, 'USAGE')
                AND NOT relation.relforcerowsecurity AS login_is_above
    FROM pg_catalog.pg_class AS relation, pg_catalog.pg_roles AS login
    WHERE relation.oid = CAST(:table AS regclass) AND login.rolname = session_user
""")
# A transaction's id would not tell: the first one of a session on a connection gets one for its seal.
_HAS_WRITTEN = text("""
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_locks AS held
        JOIN pg_catalog.pg_class AS relation ON relation.oid = held.relation
        WHERE held.pid = pg_catalog.pg_backend_pid() AND relation.relkind IN ('r', 'p')
            AND held.mode NOT IN ('AccessShareLock', 'RowShareLock')
    )
""")


def assert_invisible(query: Query, *, row: object, to: Session, owner: Session) -> None:
    """Assert that a query shows a row to its owner, and not to another tenant.

    :param query: a statement, as `select()` or `text()`; or a function that is given a session, and gives
        rows, mapped objects, ids, or dictionaries, dataclasses and sequences of these. A row is known by its
        primary key: a query that gives a number, as ``count(*)``, cannot show one.
    :param row: a mapped object that stands for a row in the database; of any session, or detached.
    :param to: a session of the other tenant.
    :param owner: a session that sees the row: one of its own tenant.
    :raises AssertionError: when the row is visible; and when that it is not would prove nothing, since
        its owner does not see it either, it is not committed, or `to` is above row-level security.
    :raises TypeError: when `row` does not stand for one.
    """
    __tracebackhide__ = True
    foreign = _ForeignRow.of(row)
    foreign.check_seen(_ask(query, owner))
    foreign.check_committed(owner)
    foreign.check_confined(to)
    foreign.check_unseen(_ask(query, to), to)


async def async_assert_invisible(
    query: AsyncQuery, *, row: object, to: AsyncSession, owner: AsyncSession
) -> None:
    """`assert_invisible` for asyncio."""
    __tracebackhide__ = True
    foreign = _ForeignRow.of(row)
    foreign.check_seen(await _async_ask(query, owner))
    await owner.run_sync(foreign.check_committed)
    await to.run_sync(foreign.check_confined)
    foreign.check_unseen(await _async_ask(query, to), to.sync_session)


def _ask(query: Query, session: Session) -> Any:
    if isinstance(query, Executable):
        result: Result[Any] = session.execute(query)
        return result.all()
    return _fetched(query(session))


async def _async_ask(query: AsyncQuery, session: AsyncSession) -> Any:
    if isinstance(query, Executable):
        result: Result[Any] = await session.execute(query)
        return result.all()
    return _fetched(await query(session))


def _fetched(found: Any) -> Any:
    return found.all() if isinstance(found, (Result, ScalarResult)) else found


@dataclass(frozen=True)
class _ForeignRow:
    mapper: Mapper[Any]
    key: tuple[Any, ...]

    @classmethod
    def of(cls, row: object) -> _ForeignRow:
        state = inspect(row, raiseerr=False)
        if not isinstance(state, InstanceState) or state.identity is None:
            raise TypeError(f"row= takes a mapped object that is in the database, not {row!r}")
        return cls(state.mapper.base_mapper, tuple(state.identity))

    def __str__(self) -> str:
        names = (column.name for column in self.mapper.primary_key)
        values = ", ".join(f"{name} = {value}" for name, value in zip(names, self.key, strict=True))
        return f"the row of {self.mapper.local_table} with {values}"

    def check_seen(self, found: Any) -> None:
        __tracebackhide__ = True
        if not self._is_in(found, certainly=True):
            raise AssertionError(
                f"this proves nothing: the query does not show {self} to its owner.\n"
                f"  It gave {_shortened(found)}\n"
                "  Next: give the owner= that sees it, and a query that would show it, by its primary key."
            )

    def check_committed(self, owner: Session) -> None:
        __tracebackhide__ = True
        if owner.scalar(_HAS_WRITTEN, bind_arguments={"mapper": self.mapper}):
            raise AssertionError(
                f"this proves nothing: the owner's session has written and not committed, and until then "
                f"nobody else can see {self}.\n"
                "  Next: commit it first; and let the query only read."
            )

    def check_confined(self, to: Session) -> None:
        __tracebackhide__ = True
        name = to.get_bind(self.mapper).dialect.identifier_preparer.format_table(self.mapper.local_table)
        asked = to.execute(_ABOVE, {"table": name}, bind_arguments={"mapper": self.mapper}).one()
        if not asked.is_on:
            why = f"row-level security is off on {name}"
        elif not asked.is_active:
            why = f"{asked.role} is above the row-level security of {name}"
        elif asked.login_is_above:
            why = f"the login {asked.login} is above the row-level security of {name}"
        else:
            return
        raise AssertionError(
            f"this proves nothing: {why}.\n"
            "  Next: let to= be a session of a login that is neither superuser nor BYPASSRLS nor the table's "
            "owner, as `workflow_sessions` opens, and let row-level security be on."
        )

    def check_unseen(self, found: Any, to: Session) -> None:
        __tracebackhide__ = True
        if self._is_in(found, certainly=False):
            raise AssertionError(
                f"{_whose(to)} sees {self}, which is another tenant's.\n  The query gave {_shortened(found)}"
            )

    def _is_in(self, found: Any, *, certainly: bool) -> bool:
        """Whether what a query gave has this row in it.

        :param certainly: to tell that it is there, for which a number that happens to be the same is not
            enough; otherwise, to tell that it is not.
        """
        state = inspect(found, raiseerr=False)
        if isinstance(state, InstanceState):
            return state.mapper.base_mapper is self.mapper and tuple(state.identity or ()) == self.key
        if isinstance(found, Row):
            return self._is_in_fields(found._mapping, certainly=certainly)
        if dataclasses.is_dataclass(found) and not isinstance(found, type):
            fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
            return self._is_in_fields(fields, certainly=certainly)
        if isinstance(found, Mapping):
            return self._is_in_fields(found, certainly=certainly)
        if isinstance(found, Iterable) and not isinstance(found, (str, bytes)):
            return any(self._is_in(part, certainly=certainly) for part in found)
        may_be = not certainly or isinstance(self.key[0], UUID)
        return may_be and len(self.key) == 1 and _same(found, self.key[0])

    def _is_in_fields(self, fields: Mapping[Any, Any], *, certainly: bool) -> bool:
        columns = self.mapper.primary_key
        for names in (
            [column.name for column in columns],
            [self.mapper.get_property_by_column(column).key for column in columns],
        ):
            if all(name in fields for name in names):
                if all(_same(fields[name], value) for name, value in zip(names, self.key, strict=True)):
                    return True
                # What has a key of its own is another row; its numbers mean nothing here.
                certainly = True
        return any(self._is_in(value, certainly=certainly) for value in fields.values())


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, UUID):
        return str(found).lower() == str(value)
    return found == value and not isinstance(found, bool)


def _whose(session: Session) -> str:
    for kind in ("user", "organization"):
        if id := getattr(session, kind, None):
            return f"the {kind} {id}"
    return "this session"


def _shortened(found: Any) -> str:
    written = repr(found)
    return written if len(written) <= 300 else f"{written[:300]}…"
