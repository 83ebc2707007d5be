"""Storage parameters of tables, and options of columns."""

from collections.abc import Sequence

from sqlalchemy import Table

from .item import TableItem, quoted


class StorageParameters(TableItem):
    """Storage parameters that a table must have; others that it has are nobody's concern.

    :param parameters: as in ALTER TABLE … SET (…), as ``fillfactor=90``.
    """

    distinct = ("parameters",)

    def __init__(self, **parameters: float | str | bool) -> None:
        self.parameters = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in parameters.items()
        }

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        settings = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        return [f"ALTER TABLE {quoted(schema, table.name)} SET ({settings})"]


class ColumnOptions(TableItem):
    """Options that a column must have.

    :param options: as in ALTER TABLE … ALTER COLUMN … SET (…), as ``n_distinct=100``.
    """

    distinct = ("column", "options")

    def __init__(self, column: str, **options: float) -> None:
        self.column = column
        self.options = options

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        settings = ", ".join(f"{name} = {value}" for name, value in self.options.items())
        return [
            f"ALTER TABLE {quoted(schema, table.name)} ALTER COLUMN {quoted(self.column)} SET ({settings})"
        ]
