"""Privileges on tables, their columns and their sequences."""

from collections.abc import Sequence

from sqlalchemy import MetaData, Table

from .item import MetaDataItem, TableItem, literal, names, quoted, roles


class Grant(TableItem):
    """Privileges that roles have on a table, on some of its columns, or on the sequence of one.

    What is not granted by an item nobody but the owner has.

    :param privileges: as SELECT, INSERT, UPDATE or DELETE; on a sequence as USAGE.
    :param to: role names; PUBLIC is everybody.
    :param columns: restricts the privileges to these columns.
    :param sequence_of: the column whose sequence is meant.
    :param if_exists: pass over roles that do not exist.
    """

    distinct = ("privileges", "to", "columns", "sequence_of")

    def __init__(
        self,
        privileges: str | Sequence[str],
        *,
        to: str | Sequence[str],
        columns: Sequence[str] = (),
        sequence_of: str | None = None,
        if_exists: bool = False,
    ) -> None:
        self.privileges = names(privileges)
        self.to = names(to)
        self.columns = tuple(columns)
        self.sequence_of = sequence_of
        self.if_exists = if_exists

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        columns = f" ({', '.join(map(quoted, self.columns))})" if self.columns else ""
        privileges = ", ".join(privilege + columns for privilege in self.privileges)
        target = (
            f"SEQUENCE {quoted(schema, f'{table.name}_{self.sequence_of}_seq')}"
            if self.sequence_of
            else f"TABLE {quoted(schema, table.name)}"
        )
        return [grant_statement(privileges, target, role, if_exists=self.if_exists) for role in self.to]


class GrantOn(MetaDataItem):
    """Privileges that roles have on a ``Sequence``, or on a table that no model declares, as Alembic's own.

    What is not granted by an item nobody but the owner has. Nothing of it is compared, nor granted, where the
    table does not exist.

    :param privileges: as SELECT.
    :param table: its name, or that of the sequence.
    :param to: role names; where one does not exist, it is passed over.
    """

    distinct = ("privileges", "to", "schema", "table")
    made_when = "after_create"

    def __init__(
        self,
        privileges: str | Sequence[str],
        table: str,
        metadata: MetaData,
        *,
        to: str | Sequence[str],
        schema: str | None = None,
    ) -> None:
        self.privileges = names(privileges)
        self.table = table
        self.to = names(to)
        self.schema = schema
        super().__init__(metadata)

    def schema_name(self) -> str:
        return self.schema or ""

    def statements(self, schema: str | None) -> Sequence[str]:
        table = quoted(schema, self.table)
        granted = " ".join(
            grant_statement(", ".join(self.privileges), f"TABLE {table}", role, if_exists=True) + ";"
            for role in self.to
        )
        return [
            (
                f"DO $there$ BEGIN IF to_regclass({literal(table)}) IS NOT NULL "
                f"THEN {granted.replace('$grant$', '$one$')} END IF; END $there$"
            )
        ]


def grant_statement(privileges: str, target: str, role: str, *, if_exists: bool) -> str:
    """Give a GRANT, which does nothing for a role that need not exist and does not."""
    statement = f"GRANT {privileges} ON {target} TO {roles([role])}"
    if not if_exists or role.upper() == "PUBLIC":
        return statement
    return (
        f"DO $grant$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(role)}) "
        f"THEN {statement}; END IF; END $grant$"
    )
