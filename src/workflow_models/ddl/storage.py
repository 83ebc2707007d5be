"""Storage parameters of tables."""

from collections.abc import Sequence

from sqlalchemy import Table

from .item import TableItem, quoted


class StorageParameters(TableItem):
    """Storage parameters that a table must have; others that it has are nobody's concern.

    :param parameters: as in ALTER TABLE … SET (…), as ``fillfactor=90``.
    """

    def __init__(self, **parameters: float | str | bool) -> None:
        self.parameters = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in parameters.items()
        }

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        settings = ", ".join(f"{name} = {value}" for name, value in self.parameters.items())
        return [f"ALTER TABLE {quoted(schema, table.name)} SET ({settings})"]
