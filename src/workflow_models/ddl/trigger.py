"""Triggers."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Table

from .expression import enclosed
from .item import TableItem, names, quoted

_ENABLED = {"ORIGIN": None, "DISABLED": "DISABLE", "REPLICA": "ENABLE REPLICA", "ALWAYS": "ENABLE ALWAYS"}


class Trigger(TableItem):
    """A trigger, as CREATE TRIGGER makes it.

    :param timing: BEFORE, AFTER or INSTEAD OF.
    :param events: INSERT, UPDATE, DELETE or TRUNCATE.
    :param function: the call, as ``schema.f()``.
    :param columns: for UPDATE OF.
    :param when: SQL over OLD and NEW.
    :param each: ROW or STATEMENT.
    :param enabled: ORIGIN, which is the usual, DISABLED, REPLICA or ALWAYS.
    """

    def __init__(
        self,
        name: str,
        timing: str,
        events: str | Sequence[str],
        function: str,
        *,
        columns: Sequence[str] = (),
        when: str | None = None,
        each: str = "ROW",
        enabled: str = "ORIGIN",
    ) -> None:
        if enabled not in _ENABLED:
            raise ValueError(f"trigger {name!r}: enabled is one of {', '.join(_ENABLED)}, not {enabled!r}")
        self.name = name
        self.timing = timing
        self.events = names(events)
        self.function = function
        self.columns = tuple(columns)
        self.when = when
        self.each = each
        self.enabled = enabled

    @property
    def expressions(self) -> Mapping[str, str | None]:
        return {"when": self.when}

    def statements(self, table: Table, schema: str | None) -> Sequence[str]:
        columns = f" OF {', '.join(map(quoted, self.columns))}" if self.columns else ""
        events = " OR ".join(event + (columns if event == "UPDATE" else "") for event in self.events)
        relation = quoted(schema, table.name)
        created = [
            f"CREATE TRIGGER {quoted(self.name)} {self.timing} {events} ON {relation} FOR EACH {self.each}"
            + (f" WHEN {enclosed(self.when)}" if self.when else "")
            + f" EXECUTE FUNCTION {self.function}"
        ]
        mode = _ENABLED[self.enabled]
        return [*created, f"ALTER TABLE {relation} {mode} TRIGGER {quoted(self.name)}"] if mode else created
