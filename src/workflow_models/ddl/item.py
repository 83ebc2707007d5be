"""What all items have in common: where they belong, and that ``create_all()`` creates them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Connection, MetaData, Table, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import SchemaItem

from .expression import fault

# With the driver's own paramstyle each % in a name would be doubled.
_preparer = postgresql.dialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]
ITEMS = "postgresql_items"

Item = TypeVar("Item", bound="TableItem")


def quoted(*names: str | None) -> str:
    """Quote the parts of a name that there are, and join them with dots."""
    return ".".join(_preparer.quote(name) for name in names if name)


def identifier(name: str) -> str:
    """Give a pattern for a name as SQL may write it."""
    in_quotes = re.escape('"' + name.replace('"', '""') + '"')
    return rf"(?:{in_quotes}|(?i:{re.escape(name)}))" if quoted(name) == name else in_quotes


def literal(value: str) -> str:
    """Quote a text."""
    return "'" + value.replace("'", "''") + "'"


def roles(names: Sequence[str]) -> str:
    """Quote role names; PUBLIC is none of them."""
    return ", ".join("PUBLIC" if name.upper() == "PUBLIC" else quoted(name) for name in names)


def names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Give one name or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def schema_in(connection: Connection, schema: str | None) -> str | None:
    """Give the schema that a ``schema_translate_map`` of the connection puts in the place of one."""
    translated: dict[str | None, str | None] = connection.get_execution_options().get(
        "schema_translate_map", {}
    )
    return translated.get(schema, schema)


class DeclarationError(Exception):
    """A declared item that PostgreSQL refuses; names the item, its table and PostgreSQL's own message."""


class TableItem(SchemaItem):
    """An object on a table: stands among the table's arguments."""

    __visit_name__ = "postgresql_item"
    distinct: ClassVar[Sequence[str]] = ("name",)
    """The attributes in which two of a kind on one table must differ."""

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        """Give the statements that create the object on a table.

        :param schema: where the table is, in place of its own.
        """
        raise NotImplementedError

    @property
    def expressions(self) -> Mapping[str, str | None]:
        """What of it is SQL that stands between parentheses."""
        return {}

    def _set_parent(self, parent: Any, **kw: Any) -> None:
        assert isinstance(parent, Table)
        for what, sql in self.expressions.items():
            wrong = fault(sql or "")
            if wrong:
                raise ValueError(f"{described(self)} on {parent.fullname}: its {what} {wrong}: {sql}")
        if not any(items_of(parent, TableItem)):
            event.listen(parent, "after_create", _created)
            if not event.contains(parent.metadata, "after_create", _all_created):
                event.listen(parent.metadata, "after_create", _all_created)
        _append(parent, self)


class MetaDataItem:
    """An object beside the tables of a MetaData."""

    distinct: ClassVar[Sequence[str]] = ("name",)
    """The attributes in which two of a kind must differ."""
    made_when: ClassVar[str] = "before_create"
    """Whether tables and sequences are made before it, or after it."""

    def __init__(self, metadata: MetaData) -> None:
        _append(metadata, self)
        event.listen(metadata, self.made_when, self._create)

    def statements(self, schema: str | None) -> Sequence[str]:
        """Give the statements that create the object.

        :param schema: where it is created, in place of its own.
        """
        raise NotImplementedError

    def schema_name(self) -> str:
        """Give the schema that it is declared in."""
        raise NotImplementedError

    def _create(self, target: MetaData, connection: Connection, **kw: Any) -> None:
        execute(connection, self.statements(self.schema_name()), described(self))


def items_of(owner: Table | MetaData, kind: type[Any]) -> Iterator[Any]:
    """Give the items of a kind that a table or a MetaData has, as declared."""
    return (item for item in owner.info.get(ITEMS, ()) if isinstance(item, kind))


def described(item: object) -> str:
    """Give the words for an item in a message."""
    return f"{type(item).__name__} {getattr(item, 'name', '')!r}".removesuffix(" ''")


def execute(connection: Connection, statements: Sequence[str], what: str) -> None:
    """Run statements as they are: in them neither % nor : starts a parameter.

    :raises DeclarationError: when PostgreSQL refuses one.
    """
    # One round trip where the driver has several statements in one.
    together = [";\n".join(statements)] if connection.dialect.driver == "psycopg" else statements
    for statement in filter(None, together):
        try:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        except DBAPIError as error:
            raise DeclarationError(f"{what}: {error.orig}") from error


@contextmanager
def rewritten(connection: Connection, change: Callable[[str], str]) -> Iterator[None]:
    """Let all statements on a connection be changed before they are sent."""
    doubled = connection.dialect.paramstyle in ("format", "pyformat")

    def instead(_connection: Any, _cursor: Any, statement: str, parameters: Any, context: Any, _: Any) -> Any:
        if parameters or not doubled or context.execution_options.get("no_parameters"):
            return change(statement), parameters
        # The driver will take each %% for one.
        return change(statement.replace("%%", "%")).replace("%", "%%"), parameters

    event.listen(connection, "before_cursor_execute", instead, retval=True)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", instead)


def revoke_defaults(kind: str, name: str, where: str, *, catalog: str = "class", prefix: str = "rel") -> str:
    """Give a statement that takes what ALTER DEFAULT PRIVILEGES gave to others than the owner.

    :param kind: TABLE, SEQUENCE or FUNCTION.
    :param name: the object's, as in REVOKE.
    :param where: SQL that finds the object in its catalog.
    """
    return f"""DO $revoke$
DECLARE
    other text;
BEGIN
    FOR other IN
        SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END
        FROM pg_{catalog} AS object CROSS JOIN aclexplode(object.{prefix}acl) AS acl
        WHERE {where} AND acl.grantee <> object.{prefix}owner
    LOOP
        EXECUTE {literal(f"REVOKE ALL ON {kind} {name} FROM ")} || other;
    END LOOP;
END
$revoke$"""


def only_what_is_granted(table: str) -> str:
    """Give a statement that takes what ALTER DEFAULT PRIVILEGES gave on a new table and its sequences.

    :param table: its name, as in REVOKE.
    """
    return f"""DO $revoke$ DECLARE revoke text; BEGIN
    FOR revoke IN
        SELECT 'REVOKE ALL ON ' || CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass
            || ' FROM ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
        FROM pg_class AS c CROSS JOIN aclexplode(relacl)
        WHERE grantee <> relowner AND (c.oid = {literal(table)}::regclass OR c.oid IN (
            SELECT objid FROM pg_depend WHERE refobjid = {literal(table)}::regclass
                AND classid = 'pg_class'::regclass AND deptype IN ('a', 'i')))
    LOOP
        EXECUTE revoke;
    END LOOP;
END $revoke$"""


def create_items(table: Table, connection: Connection) -> None:
    """Create what stands on a table that is there.

    :raises DeclarationError: when PostgreSQL refuses an item.
    """
    schema = schema_in(connection, table.schema)
    for item in items_of(table, TableItem):
        execute(connection, item.statements(table, schema), f"{described(item)} on {table.fullname}")


def _created(
    target: Table, connection: Connection, *, _is_metadata_operation: bool = False, **kw: Any
) -> None:
    schema = schema_in(connection, target.schema)
    execute(connection, [only_what_is_granted(quoted(schema, target.name))], target.fullname)
    # Otherwise once all tables are there, since a policy may read one that comes later.
    if not _is_metadata_operation:
        create_items(target, connection)


def _all_created(target: MetaData, connection: Connection, *, tables: Iterable[Table], **kw: Any) -> None:
    for table in tables:
        create_items(table, connection)


def _append(owner: Table | MetaData, item: Any) -> None:
    items = owner.info.setdefault(ITEMS, [])
    if any(type(other) is type(item) and _signature(other) == _signature(item) for other in items):
        raise ValueError(
            f"{described(item)} is declared twice on {getattr(owner, 'fullname', 'the MetaData')}"
        )
    items.append(item)


def _signature(item: Any) -> tuple[object, ...]:
    return tuple(getattr(item, part) for part in item.distinct)
