"""Who asks, and what they can see: what each request begins with."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import jwt
from fastapi import Depends, HTTPException, Request, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from workflow_models.tenancy import AsyncTenantSession

bearer = HTTPBearer()


async def current_user(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]
) -> UUID:
    """The user whom a verified token names. Nothing else in a request says who asks."""
    try:
        claims = jwt.decode(
            credentials.credentials,
            request.state.settings.jwt_secret,
            # Named here, and not by the token: one that says "none" would need no signature.
            algorithms=["HS256"],
            options={"require": ["sub", "exp"]},
        )
        return UUID(claims["sub"])
    except (jwt.InvalidTokenError, ValueError) as error:
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED, "Not a valid token", headers={"WWW-Authenticate": "Bearer"}
        ) from error


User = Annotated[UUID, Depends(current_user)]


async def tenant_session(request: Request, user: User) -> AsyncIterator[AsyncTenantSession]:
    """A session of the user, in one transaction: committed unless the request fails."""
    async with request.state.sessions.begin(user=user) as session:
        yield session


# "function": committed before the response is sent. By default FastAPI would send it first, and a client
# would be told of a row that is not there yet, or never will be.
Session = Annotated[AsyncTenantSession, Depends(tenant_session, scope="function")]
