"""Extended statistics."""

from collections.abc import Sequence

from sqlalchemy import Table

from .item import TableItem, quoted


class Statistics(TableItem):
    """Extended statistics over columns, as CREATE STATISTICS makes them.

    :param kinds: of ndistinct, dependencies and mcv; none means all.
    """

    def __init__(self, name: str, *columns: str, kinds: Sequence[str] = ()) -> None:
        self.name = name
        self.columns = columns
        self.kinds = tuple(kinds)

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        kinds = f" ({', '.join(self.kinds)})" if self.kinds else ""
        return [
            (
                f"CREATE STATISTICS {quoted(schema, self.name)}{kinds} "
                f"ON {', '.join(map(quoted, self.columns))} FROM {quoted(schema, table.name)}"
            )
        ]
