"""What a generated revision does, in the words that its docstring opens with."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from alembic.operations import ops
from alembic.operations.ops import OpContainer
from sqlalchemy.dialects import postgresql

from .compare import Difference
from .item import quoted

_dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
_compiler = _dialect.ddl_compiler(_dialect, None)  # type: ignore[arg-type]
_WIDTH = 105
_LONG = 160

_INSTANT = "ACCESS EXCLUSIVE on {} for an instant"
_BRIEF = "SHARE UPDATE EXCLUSIVE on {} for an instant"
_REWRITTEN = "ACCESS EXCLUSIVE on {} while it is rewritten"
_LOCKS = {
    "row security": _INSTANT,
    "policy": _INSTANT,
    "rule": _INSTANT,
    "default": _INSTANT,
    "storage": _INSTANT,
    "compression": _INSTANT,
    "identity": _INSTANT,
    "owner": _INSTANT,
    "of type": _INSTANT,
    "inheritance": _INSTANT,
    "replica identity": _INSTANT,
    "type": "ACCESS EXCLUSIVE on {} while it may be rewritten",
    "generated column": "ACCESS EXCLUSIVE on {} while it may be rewritten",
    "persistence": _REWRITTEN,
    "not null": "ACCESS EXCLUSIVE on {} for an instant, SHARE UPDATE EXCLUSIVE while it is validated",
    "check constraint": "ACCESS EXCLUSIVE on {} for an instant, SHARE UPDATE EXCLUSIVE while it is validated",
    "foreign key": "ACCESS EXCLUSIVE on {} and SHARE ROW EXCLUSIVE on the referenced table for an instant, "
    "SHARE UPDATE EXCLUSIVE while it is validated",
    "primary key": "SHARE UPDATE EXCLUSIVE on {} while the index is built, "
    "then ACCESS EXCLUSIVE for an instant",
    "unique constraint": "SHARE UPDATE EXCLUSIVE on {} while the index is built, "
    "then ACCESS EXCLUSIVE for an instant",
    "exclusion constraint": "ACCESS EXCLUSIVE on {} while its index is built",
    "index": "SHARE UPDATE EXCLUSIVE on {} while an index is built or dropped",
    "trigger": "SHARE ROW EXCLUSIVE on {} for an instant, ACCESS EXCLUSIVE where one is dropped",
    "identity sequence": "SHARE ROW EXCLUSIVE on a sequence of {} for an instant",
    "sequence": "SHARE ROW EXCLUSIVE on a sequence of {} for an instant",
    "statistics": _BRIEF,
    "statistics target": _BRIEF,
    "column option": _BRIEF,
    "column comment": _BRIEF,
    "table comment": _BRIEF,
    "storage parameter": _BRIEF,
    "clustering": _BRIEF,
}


class Summary:
    """The paragraphs of a docstring that are known.

    :param upgrade: the operations, whose tables and columns are named.
    :param differences: all others.
    :param replaced: what is dropped and made again around the changes, though it may not differ.
    """

    def __init__(
        self, upgrade: OpContainer, differences: Sequence[Difference], replaced: Sequence[Difference]
    ) -> None:
        self._upgrade = upgrade
        self._columns = list(_of_core(upgrade))
        self._differences = differences
        self._replaced = replaced

    @property
    def changes(self) -> str:
        """What is added, changed, dropped, and what of it widens access; empty where nothing is."""
        adds = [title + self._with(title) for verb, title, _ in self._columns if verb == "Adds"]
        drops = [title for verb, title, _ in self._columns if verb == "Drops"]
        changes, widens = [], []
        for difference in self._differences:
            title = _title(difference)
            if difference.with_table:
                continue
            if difference.found is None:
                adds.append(title)
            elif difference.declared is None:
                drops.append(title)
            else:
                changes.append(f"{title}: {_shortened(difference.values)}")
            if difference.reverse.widens_access:
                widens.append(title)
            if _opens_to_all(difference):
                widens.append(f"grant PUBLIC: EXECUTE on {difference.fact.name}")
        again = [_title(each) for each in self._replaced if each.declared == each.found]
        parts = {
            "Adds": adds,
            "Changes": changes,
            "Makes again": again,
            "Drops": drops,
            "May widen access": widens,
        }
        return "\n".join(_filled(f"{name}: {'; '.join(each)}.") for name, each in parts.items() if each)

    @property
    def comments(self) -> Sequence[str]:
        """The same as lines of comments, which start as those that Alembic writes itself."""
        return [f"# ### {line}" for line in f"{self.changes}\n{self.locks}".splitlines()]

    def _with(self, title: str) -> str:
        """Count what comes with a new table."""
        kinds = Counter(
            difference.fact.kind
            for difference in self._differences
            if difference.with_table and title == f"table {difference.fact.on}"
        )
        return f" ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})" if kinds else ""

    @property
    def locks(self) -> str:
        """Which locks it takes, as far as the kinds of the changes tell."""
        locks = [
            _LOCKS[difference.fact.kind].format(difference.fact.on)
            for difference in (*self._differences, *self._replaced)
            if difference.fact.kind in _LOCKS and not difference.with_table
        ]
        locks = [*(lock for _, _, lock in self._columns), *locks]
        return _filled(f"Locks: {'; '.join(dict.fromkeys(locks)) or 'none on a table'}.")

    @property
    def losses(self) -> Mapping[str, str]:
        """What going down again loses for good, and the queries that count it: ``downgrade_losses``."""
        return {**dict(_losses(self._upgrade)), **dict(_changed_values(self._differences))}


# PostgreSQL cannot say of two such values whether they are the same.
_NOT_COMPARED = ("json", "xml", "point", "polygon")


def _losses(upgrade: OpContainer) -> Iterator[tuple[str, str]]:
    for op in upgrade.ops:
        if isinstance(op, ops.ModifyTableOps):
            yield from _losses(op)
        elif isinstance(op, ops.CreateTableOp):
            table = quoted(op.schema, op.table_name)
            yield f"rows of {table}", f"SELECT count(*) FROM {table}"
        elif isinstance(op, ops.AddColumnOp) and op.column.computed is None:
            table, column = quoted(op.schema, op.table_name), quoted(op.column.name)
            default = _compiler.get_column_default_string(op.column)
            as_text = _as_text(op.column.type.compile(_dialect).lower())
            given = f"{as_text} IS DISTINCT FROM ({default}){as_text}" if default else " IS NOT NULL"
            yield (
                f"rows of {table} with a value in {column}",
                f"SELECT count(*) FROM {table} WHERE {column}{given}",
            )


def _as_text(type_: str) -> str:
    return "::text" if type_.partition("[")[0] in _NOT_COMPARED else ""


def _changed_values(differences: Iterable[Difference]) -> Iterator[tuple[str, str]]:
    """Count the values that are others once a column has got its earlier type back."""
    for difference in differences:
        declared, found = difference.declared, difference.found
        if difference.fact.kind != "type" or declared is None or found is None:
            continue
        if difference.reverse.refuses_what_is_too_long:
            continue
        table, column = declared.on, quoted(declared.name)
        down, up = (fact.create[0].partition(f" USING {column}")[2] for fact in (found, declared))
        as_text = _as_text(declared.attributes["value"])
        changes = f"{column}{down}{up}{as_text} IS DISTINCT FROM {column}{as_text}"
        yield (
            f"values of {column} in {table} that {found.attributes['value']} cannot hold",
            f"SELECT count(*) FROM {table} WHERE {changes}",
        )


def _of_core(upgrade: OpContainer) -> Iterator[tuple[str, str, str]]:
    from .autogenerate import MissingColumnOp, UndecidedOp

    for op in upgrade.ops:
        if isinstance(op, ops.ModifyTableOps):
            yield from _of_core(op)
            continue
        undecided = isinstance(op, UndecidedOp)
        op = op.op if isinstance(op, UndecidedOp) else op
        when = ", once that is decided" if undecided else ""
        if isinstance(op, ops.CreateTableOp):
            yield (
                "Adds",
                f"table {op.table_name}",
                f"SHARE ROW EXCLUSIVE on tables that {op.table_name} refers to",
            )
        elif isinstance(op, ops.DropTableOp):
            yield "Drops", f"table {op.table_name}{when}", f"ACCESS EXCLUSIVE on {op.table_name}"
        elif isinstance(op, ops.AddColumnOp):
            lock = _REWRITTEN if isinstance(op, MissingColumnOp) and op.rewrites else _INSTANT
            yield "Adds", f"column {op.column.name} on {op.table_name}", lock.format(op.table_name)
        elif isinstance(op, ops.DropColumnOp):
            yield "Drops", f"column {op.column_name} on {op.table_name}{when}", _INSTANT.format(op.table_name)


def _opens_to_all(difference: Difference) -> bool:
    """Tell whether everybody may call a function that is made, by what is made with it."""
    declared = difference.declared
    return (
        difference.fact.kind == "function"
        and declared is not None
        and not difference.is_altered
        and any(each.startswith("GRANT ") and each.endswith(" TO PUBLIC") for each in declared.create)
    )


def _title(difference: Difference) -> str:
    return difference.title.replace("\\", "\\\\").replace('"""', "'''")


def _shortened(words: str) -> str:
    words = words.replace("\\", "\\\\").replace('"""', "'''")
    return words if len(words) <= _LONG else words[:_LONG] + " …"


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False)
