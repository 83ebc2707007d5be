"""What both models share: the base class, the naming of constraints, the column types."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias, TypeVar, cast
from uuid import UUID

from sqlalchemy import DateTime, Dialect, MetaData, Text, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

JsonObject: TypeAlias = dict[str, Any]
JsonArray: TypeAlias = list[Any]

E = TypeVar("E", bound=StrEnum)

# PostgreSQL's own names: adopted databases have those.
NAMING_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "ix": "idx_%(table_name)s_%(column_0_N_name)s",
}


class TextEnum(TypeDecorator[E]):
    """A `StrEnum` over `text`.

    A value outside the enum is returned as the `str` that it is, not refused: an adopted
    database may hold old rows with one, and `WHERE status = 'failed'` has to find them.
    What may be written is the CHECK's business.
    """

    impl = Text
    cache_ok = True

    def __init__(self, enum: type[E]) -> None:
        super().__init__()
        self.enum = enum
        self._members = {member.value: member for member in enum}

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        # A stray value is typed as a member too: all other code compares with members.
        return None if value is None else self._members.get(value, cast("E", value))


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: Uuid(),
        datetime: DateTime(timezone=True),
        str: Text(),
        # None means NULL; by default it would be stored as the JSON value null.
        JsonObject: JSONB(none_as_null=True),
        JsonArray: JSONB(none_as_null=True),
    }


metadata = Base.metadata
