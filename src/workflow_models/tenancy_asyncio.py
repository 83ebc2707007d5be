"""Tenant sessions for asyncio; to be imported from `workflow_models.tenancy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ScalarSelect

from workflow_models.errors import MissingExtraError
from workflow_models.tenancy import TenantSession

try:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
except ImportError as error:
    raise MissingExtraError("workflow_models.tenancy_asyncio", "asyncio", error) from None

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio.session import _AsyncSessionContextManager


class AsyncTenantSession(AsyncSession):
    """A `TenantSession` for asyncio, over an `AsyncEngine` of asyncpg or psycopg."""

    sync_session_class = TenantSession
    sync_session: TenantSession

    @property
    def user(self) -> UUID | None:
        """As of `TenantSession`."""
        return self.sync_session.user

    @property
    def organization(self) -> UUID | None:
        """As of `TenantSession`."""
        return self.sync_session.organization

    @property
    def every_organization(self) -> bool:
        return self.sync_session.every_organization

    @property
    def own_organization(self) -> ScalarSelect[UUID]:
        """As of `TenantSession`."""
        return self.sync_session.own_organization


class AsyncTenantSessionmaker(async_sessionmaker[AsyncTenantSession]):
    """A `TenantSessionmaker` for asyncio.

    :param options: those of `AsyncSession`, as for `async_sessionmaker`.
    """

    def __init__(self, bind: AsyncEngine, **options: Any) -> None:
        super().__init__(bind, class_=AsyncTenantSession, **options)

    def __call__(
        self,
        *,
        user: UUID | str | None = None,
        organization: UUID | str | None = None,
        every_organization: bool = False,
        **options: Any,
    ) -> AsyncTenantSession:
        """Open an `AsyncTenantSession`."""
        tenant = {"user": user, "organization": organization, "every_organization": every_organization}
        return super().__call__(**tenant, **options)

    def begin(
        self,
        *,
        user: UUID | str | None = None,
        organization: UUID | str | None = None,
        every_organization: bool = False,
    ) -> _AsyncSessionContextManager[AsyncTenantSession]:
        """Open one with a transaction, which is committed unless an exception ends the block."""
        tenant = {"user": user, "organization": organization, "every_organization": every_organization}
        return async_sessionmaker(class_=self.class_, **{**self.kw, **tenant}).begin()
