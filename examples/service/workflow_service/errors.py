"""Which answer an error of the database or of a tenant session is."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from workflow_models.errors import (
    UnknownUserError,
    UnreachableDatabaseError,
    UserWithoutOrganizationError,
)

_INSUFFICIENT_PRIVILEGE = "42501"


def add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(UnknownUserError)
    @app.exception_handler(UserWithoutOrganizationError)
    async def nobody(request: Request, error: Exception) -> JSONResponse:
        return _answer(HTTPStatus.FORBIDDEN)

    @app.exception_handler(UnreachableDatabaseError)
    async def unreachable(request: Request, error: Exception) -> JSONResponse:
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE)

    @app.exception_handler(DataError)
    async def not_storable(request: Request, error: Exception) -> JSONResponse:
        # Such as a NUL, which JSON may hold and PostgreSQL does not.
        return _answer(HTTPStatus.UNPROCESSABLE_ENTITY)

    @app.exception_handler(DBAPIError)
    async def of_database(request: Request, error: DBAPIError) -> JSONResponse:
        if error.connection_invalidated:
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE)
        # A policy or a grant refuses: as of a member who would create a workflow.
        if getattr(error.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
            return _answer(HTTPStatus.FORBIDDEN)
        raise error


def _answer(status: HTTPStatus) -> JSONResponse:
    return JSONResponse({"detail": status.phrase}, status)
