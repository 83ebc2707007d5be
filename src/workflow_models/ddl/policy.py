"""Row security: whether a table has it, and its policies."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Table

from .expression import enclosed
from .item import TableItem, names, quoted, roles


class RowSecurity(TableItem):
    """Row-level security of a table.

    :param enabled: as by ALTER TABLE … ENABLE ROW LEVEL SECURITY.
    :param forced: whether it holds for the table's owner too.
    """

    distinct = ()

    def __init__(self, *, enabled: bool = True, forced: bool = False) -> None:
        self.enabled = enabled
        self.forced = forced

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        alter = f"ALTER TABLE {quoted(schema, table.name)}"
        return [
            f"{alter} {'ENABLE' if self.enabled else 'DISABLE'} ROW LEVEL SECURITY",
            f"{alter} {'FORCE' if self.forced else 'NO FORCE'} ROW LEVEL SECURITY",
        ]


class Policy(TableItem):
    """A row-level security policy, as CREATE POLICY makes it.

    :param command: ALL, SELECT, INSERT, UPDATE or DELETE.
    :param to: role names; PUBLIC is everybody.
    :param restrictive: rows must pass all restrictive policies, and one that is not.
    :param using: SQL that rows must satisfy to be seen, updated or deleted.
    :param check: SQL that new rows must satisfy.
    :raises ValueError: for another command, or an expression that the command cannot have; once it stands on
        a table, for one that leaves its parentheses.
    """

    def __init__(
        self,
        name: str,
        command: str = "ALL",
        *,
        to: str | Sequence[str] = "PUBLIC",
        restrictive: bool = False,
        using: str | None = None,
        check: str | None = None,
    ) -> None:
        if command not in ("ALL", "SELECT", "INSERT", "UPDATE", "DELETE"):
            raise ValueError(f"policy {name!r}: {command!r} is no command of a policy")
        if command == "INSERT" and using is not None:
            raise ValueError(f"policy {name!r}: a policy for INSERT has only a check")
        if command in ("SELECT", "DELETE") and check is not None:
            raise ValueError(f"policy {name!r}: a policy for {command} has no check")
        self.name = name
        self.command = command
        self.to = names(to)
        self.restrictive = restrictive
        self.using = using
        self.check = check

    @property
    def expressions(self) -> Mapping[str, str | None]:
        return {"using": self.using, "check": self.check}

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        return [
            f"CREATE POLICY {quoted(self.name)} ON {quoted(schema, table.name)}"
            + (" AS RESTRICTIVE" if self.restrictive else "")
            + f" FOR {self.command} TO {roles(self.to)}"
            + (f" USING {enclosed(self.using)}" if self.using is not None else "")
            + (f" WITH CHECK {enclosed(self.check)}" if self.check is not None else "")
        ]
