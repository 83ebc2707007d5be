"""Differences as operations of Alembic: plain SQL in the right order, each with its way back."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import groupby
from logging import getLogger
from typing import Any
from weakref import WeakKeyDictionary

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.operations import ops
from alembic.operations.ops import MigrateOperation, OpContainer, UpgradeOps
from alembic.util import CommandError, PriorityDispatchResult
from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ClauseElement,
    Column,
    Connection,
    DefaultClause,
    Table,
    TextClause,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeEngine

from .compare import Difference
from .declared import (
    ComparisonError,
    comparison,
    held_by_others,
    hold,
    homes,
    is_managed,
    managed_tables,
    print_alike,
    qualified,
    refuse_closed_schemas,
    set_path,
    visible_schemas,
)
from .enum_types import enum_in, native
from .facts import Facts
from .item import ITEMS, DeclarationError, literal, only_what_is_granted, quoted
from .order import Comparison, Step, adds_values, plan, settled
from .restored import restoring, restoring_table
from .summary import Summary

log = getLogger(__name__)

_CONCURRENTLY = ("CREATE INDEX", "CREATE UNIQUE INDEX", "DROP INDEX")
_LINE_LENGTH = 110


class ChangeOp(MigrateOperation):
    """One difference, for those who read the list of operations."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference

    def to_diff_tuple(self) -> "Line":
        """Give the kind of change, which thing it is, and what differs, in words."""
        declared, found = self.difference.declared, self.difference.found
        verb = "add" if found is None else "remove" if declared is None else "modify"
        title, words = self.difference.title, self.difference.words
        verb = f"{verb}_{self.difference.fact.kind.replace(' ', '_')}"
        return Line((verb, title, words), "\n      ".join(self.difference.lines))


class Line(tuple[Any, ...]):
    """What differs, printed on a line of its own, since Alembic prints the list of all as it is."""

    words: str

    def __new__(cls, values: Iterable[Any], words: str) -> "Line":
        """Make a tuple with words for it."""
        line = super().__new__(cls, values)
        line.words = words
        return line

    def __repr__(self) -> str:
        return f"\n  {self.words}"


class MissingColumnOp(ops.AddColumnOp):
    """A column to add, for those who read the list of operations."""

    rewrites = False
    """Whether the table is rewritten for it."""

    def to_diff_tuple(self) -> Line:
        """Give what the core gives."""
        words = f"column {self.column.name} on {self.table_name}: declared, not found"
        return Line(super().to_diff_tuple(), words)


class MissingTableOp(ops.CreateTableOp):
    """A table to create, for those who read the list of operations."""

    def to_diff_tuple(self) -> Line:
        """Give what the core gives."""
        return Line(super().to_diff_tuple(), f"table {self.table_name}: declared, not found")


class ReportOp(OpContainer):
    """What differs, for those who read the list of operations; how that is settled is in others."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        super().__init__([ChangeOp(difference) for difference in differences])

    def reverse(self) -> "NoteOp":
        """Give nothing: it is about one direction."""
        return NoteOp()


class StepsOp(OpContainer):
    """Statements in one place of a revision, and those that stand there on the way back.

    :param unchecked: whether tables or columns that SQL functions name may be missing as yet.
    """

    def __init__(self, steps: Sequence[Step], back: Sequence[Step], *, unchecked: bool = False) -> None:
        super().__init__([])
        self.steps = steps
        self.back = back
        self.unchecked = unchecked

    def reverse(self) -> "StepsOp":
        """Give the way back."""
        return StepsOp(self.back, self.steps, unchecked=self.unchecked)


class NoteOp(OpContainer):
    """Lines in one direction of a revision that change nothing."""

    def __init__(self, *lines: str) -> None:
        super().__init__([])
        self.lines = lines

    def reverse(self) -> "NoteOp":
        """Give nothing: it is about one direction."""
        return NoteOp()


class StatementsOp(OpContainer):
    """Statements of the way back of a drop."""

    def __init__(self, statements: Sequence[str]) -> None:
        super().__init__([])
        self.statements = statements

    def reverse(self) -> NoteOp:
        """Give nothing: the drop itself is known."""
        return NoteOp()


class UndecidedOp(MigrateOperation):
    """An operation that loses data: written as a comment, since somebody has to decide it.

    :param what: is lost, in words.
    :param restoring: statements of the way back; without any it is that of Alembic.
    """

    def __init__(self, op: Any, what: str, restoring: Sequence[str] = ()) -> None:
        self.op = op
        self.what = what
        self.restoring = restoring

    def reverse(self) -> MigrateOperation:
        """Give the way back of the operation, which restores no data."""
        if self.restoring:
            return StatementsOp(self.restoring)
        reverse: MigrateOperation = self.op.reverse()
        if isinstance(reverse, ops.AddColumnOp):
            reverse.column = _mended(reverse.column)
        elif isinstance(reverse, ops.CreateTableOp):
            reverse.columns = [_mended(item) for item in reverse.columns]
        return reverse

    def to_diff_tuple(self) -> Line:
        """Give what the operation itself gives."""
        return Line(self.op.to_diff_tuple(), f"{self.what}: found, not declared")


def compare_declared(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Add what differs to the operations of an autogenerate run.

    :raises CommandError: when PostgreSQL refuses a declared item, or nothing can be compared.
    """
    connection, metadata = autogen_context.connection, autogen_context.metadata
    assert connection is not None
    assert metadata is not None
    _UNPIN.pop(autogen_context, lambda: None)()
    options = autogen_context.opts or {}
    version_table = quoted(
        options.get("version_table_schema"), options.get("version_table") or "alembic_version"
    )
    if not options.get("version_table_schema"):
        # The core does not know it by the schema that the path leads to.
        known = qualified(connection, version_table)
        upgrade_ops.ops[:] = [op for op in upgrade_ops.ops if not known or _relation(op) != known]
    try:
        compared = comparison(
            connection,
            metadata,
            include=lambda table: autogen_context.run_object_filters(table, table.name, "table", False, None),
            known=[version_table],
            dropped=[op.to_table() for op in upgrade_ops.ops if isinstance(op, ops.DropTableOp)],
        )
    except DeclarationError as error:
        raise CommandError(f"the models declare what PostgreSQL refuses. {error}") from error
    except ComparisonError as error:
        raise CommandError(f"nothing was compared: {error}") from error
    allowed = set(options.get("allow_extra") or ())
    # The schema of the version table is there at the latest when a revision runs, and stays.
    of_version_table = ("schema", options.get("version_table_schema"))
    found = [
        _once(difference, compared.dropped)
        for difference in compared.differences
        if not _is_allowed(difference, allowed) and difference.fact.key[:2] != of_version_table
    ]
    others = [each.fact.on for each in compared.differences if each.fact.kind == "relation kind"]
    # The core takes some for tables, and others for missing ones.
    upgrade_ops.ops[:] = [op for op in upgrade_ops.ops if _relation(op) not in others]
    columns = _pass_over(upgrade_ops, allowed)
    used = {*columns.values(), *(each.title for each in compared.differences if _is_allowed(each, allowed))}
    for title in sorted(allowed - used):
        log.warning("allow_extra names %s: nothing extra is called that.", title)
    # To the rest of the revision they are as good as declared.
    kept = {key: fact for key, fact in compared.found.items() if (fact.on, fact.column) in columns}
    compared = replace(compared, differences=found, declared={**compared.declared, **kept})
    _mend_core(upgrade_ops, compared)
    changes = _arrange(upgrade_ops, compared)
    summary = Summary(upgrade_ops, found, [each for each in changes if each.replaced])
    template_args = options.get("template_args")
    if template_args is not None:
        template_args["summary"] = summary
    # For templates that know nothing of it; others leave out lines that start like Alembic's own comments.
    upgrade_ops.ops[:0] = [NoteOp(*summary.comments)] if summary.changes else []
    return PriorityDispatchResult.CONTINUE


def hold_tables(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Wait, but not for long, for who has a table for himself, before anything is read.

    :raises CommandError: when that takes too long.
    """
    del upgrade_ops
    connection = autogen_context.connection
    assert connection is not None
    print_alike(connection)
    # SQLAlchemy stumbles over a CHECK that is NOT VALID, which is compared here.
    warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'", SAWarning)
    managed = [
        table
        for table in managed_tables(autogen_context.metadata or ())
        if autogen_context.run_object_filters(table, table.name, "table", False, None)
    ]
    names = [quoted(table.schema, table.name) for table in managed]
    try:
        refuse_closed_schemas(connection, managed)
        _pin_path(autogen_context, connection, managed)
        hold(connection, [*names, *_held_and_reflected(autogen_context, connection)])
    except ComparisonError as error:
        raise CommandError(f"nothing was compared: {error}") from error
    return PriorityDispatchResult.CONTINUE


# What brings back what a run found, until it ends.
_UNPIN: WeakKeyDictionary[AutogenContext, Callable[[], None]] = WeakKeyDictionary()


def _pin_path(autogen_context: AutogenContext, connection: Connection, tables: Sequence[Table]) -> None:
    """Let the core see a table that is declared with its schema there alone, whatever the path is.

    It takes all tables in the path for such without a schema, and those of the schema that came first when
    the connection was made for nothing else.
    """
    path, dialect = visible_schemas(connection), connection.dialect
    home = homes(connection, tables)
    first = path[0] if path else None

    def is_wanted(schema: str | None) -> bool:
        return autogen_context.run_name_filters(schema, "schema", {})

    if is_wanted(None) or not ((autogen_context.opts or {}).get("include_schemas") and is_wanted(first)):
        # Then the first one is looked into only as the one that needs no name.
        home = [first, *home] if first else home
    hidden = {table.schema for table in tables}.difference(home)
    pinned = list(dict.fromkeys([*home, *(schema for schema in path if schema not in hidden)]))
    first = pinned[0] if pinned else None
    if pinned == path and dialect.default_schema_name == first:
        return
    before = connection.scalar(text("SELECT current_setting('search_path')"))
    set_path(connection, pinned)
    # Of this connection alone: others of its engine go on with theirs.
    connection.dialect = copy(dialect)
    connection.dialect.default_schema_name = first

    def unpin() -> None:
        connection.dialect = dialect
        connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": before})

    _UNPIN[autogen_context] = unpin


def _held_and_reflected(autogen_context: AutogenContext, connection: Connection) -> Iterator[str]:
    """Give the tables of others for which the core would wait: it reads all before it leaves some out."""
    default = connection.dialect.default_schema_name
    for schema, name in held_by_others(connection):
        # The core calls the default one so.
        of = None if schema == default else schema
        if of and not (autogen_context.opts or {}).get("include_schemas"):
            continue
        if autogen_context.run_name_filters(of, "schema", {}) and autogen_context.run_name_filters(
            name, "table", {"schema_name": of}
        ):
            yield quoted(schema, name)


def _is_allowed(difference: Difference, allowed: set[str]) -> bool:
    """Tell whether the options allow what is there; what is declared is never allowed to differ."""
    extra = difference.declared is None or not difference.fact.drop
    return extra and difference.found is not None and difference.title in allowed


def _once(difference: Difference, dropped: Facts) -> Difference:
    """Leave to a table that is dropped, and made again, from which one it inherits."""
    found = difference.found
    if found is None or found.kind != "inheritance":
        return difference
    of_dropped = any(fact.kind == found.kind and fact.name == found.name for fact in dropped.values())
    return replace(difference, found=replace(found, create=())) if of_dropped else difference


def _pass_over(container: OpContainer, allowed: set[str]) -> dict[tuple[str, str | None], str]:
    """Take out the drops that the options allow to be left; gives their titles, by table and column."""
    passed: dict[tuple[str, str | None], str] = {}
    for op in list(container.ops):
        if isinstance(op, ops.ModifyTableOps):
            passed |= _pass_over(op, allowed)
            if not op.ops:
                container.ops.remove(op)
        elif isinstance(op, ops.DropColumnOp | ops.DropTableOp) and _title(op) in allowed:
            passed[quoted(op.schema, op.table_name), getattr(op, "column_name", None)] = _title(op)
            container.ops.remove(op)
    return passed


def _relation(op: MigrateOperation) -> str:
    return quoted(getattr(op, "schema", None), getattr(op, "table_name", None))


def _title(op: ops.DropColumnOp | ops.DropTableOp) -> str:
    if isinstance(op, ops.DropTableOp):
        return f"table {op.table_name}"
    return f"column {op.column_name} on {op.table_name}"


def _arrange(upgrade_ops: UpgradeOps, compared: Comparison) -> list[Difference]:
    """Put what settles the differences around the core's operations; gives all that is changed for it."""
    changes, in_the_way = settled(compared)
    forward, back = plan(changes), plan([change.reverse for change in changes])
    named = list(_not_declared(compared.differences, changes))
    enums = list(_with_other_values(compared.differences))
    others = [_of_another_kind(each) for each in compared.differences if each.fact.kind == "relation kind"]
    unchecked = bool(upgrade_ops.ops)
    upgrade_ops.ops[:] = [
        *([ReportOp(compared.differences)] if compared.differences else []),
        *(
            [_refusing(f"decide about {', '.join(named)}: in a declared schema, and not declared.")]
            if named
            else []
        ),
        *([_refusing(_VALUES.format("; ".join(enums)))] if enums else []),
        *(
            [_refusing(f"decide about {'; '.join(others)}: nothing turns one into the other.")]
            if others
            else []
        ),
        *([_refusing(_NOT_OURS.format("; ".join(in_the_way)))] if in_the_way else []),
        *(op for op in upgrade_ops.ops if isinstance(op, NoteOp)),
        *_steps(forward.before, back.after, unchecked),
        *_parted(upgrade_ops.ops, dropping=True),
        *_steps(forward.between, back.between, unchecked),
        *_parted(upgrade_ops.ops, dropping=False),
        *_steps(forward.after, back.before, unchecked),
    ]
    return changes


def _parted(core: Sequence[MigrateOperation], *, dropping: bool) -> Iterator[MigrateOperation]:
    """Give those of the core's operations that drop columns or tables, or the others."""
    for op in core:
        if isinstance(op, ops.ModifyTableOps):
            of_table = [each for each in op.ops if isinstance(each, UndecidedOp) is dropping]
            if of_table:
                yield ops.ModifyTableOps(op.table_name, of_table, schema=op.schema)
        elif isinstance(op, UndecidedOp) is dropping and not isinstance(op, NoteOp):
            yield op


_NOT_OURS = (
    "decide about what others made: {}. PostgreSQL does not change under it what it uses: "
    "drop it here, and make it again at the end."
)


def _not_declared(differences: Iterable[Difference], changes: Iterable[Difference]) -> Iterator[str]:
    """Name what stands in a declared schema, and ask whether a sequence is one that is missing."""
    missing = [
        each.fact.name for each in changes if each.fact.kind == "standalone sequence" and each.found is None
    ]
    for difference in differences:
        name = difference.fact.name
        if difference.fact.kind != "other object":
            continue
        if missing and name.startswith("sequence "):
            name += (
                f" (or is it what {' or '.join(missing)} was called? then let this revision do nothing but "
                f"ALTER {name.replace('sequence', 'SEQUENCE', 1)} RENAME TO {quoted(missing[0])})"
            )
        yield name


_VALUES = (
    "decide about {}. PostgreSQL neither takes a value away nor moves one: "
    "declare the values as they are, or make another type by hand."
)


def _with_other_values(differences: Iterable[Difference]) -> Iterator[str]:
    """Name the enum types that do not become what is declared by more values, and ask who was renamed."""
    for difference in filter(adds_values, differences):
        assert difference.declared is not None
        assert difference.found is not None
        declared, found = (each.attributes["values"] for each in (difference.declared, difference.found))
        if [value for value in declared if value in found] == found:
            continue
        extra = [value for value in found if value not in declared]
        words = f"{difference.title}, whose values are {found}, declared {declared}"
        # Of as many values each in its place.
        pairs = [pair for pair in zip(found, declared, strict=False) if pair[0] != pair[1]]
        if len(found) == len(declared) and [old for old, _ in pairs] == extra:
            name = difference.found.drop[0].removeprefix("DROP TYPE ")
            renaming = "; ".join(
                f"ALTER TYPE {name} RENAME VALUE {literal(old)} TO {literal(new)}" for old, new in pairs
            )
            words += f" (or was a value only renamed? then let this revision do nothing but {renaming})"
        yield words


def _of_another_kind(difference: Difference) -> str:
    declared, found = difference.declared, difference.found
    assert declared is not None
    assert found is not None
    is_, declared_ = (fact.attributes["value"] for fact in (found, declared))
    return f"{found.on}, a {is_} in the database and a {declared_} in the models"


def _steps(steps: Sequence[Step], back: Sequence[Step], unchecked: bool) -> list[MigrateOperation]:
    return [StepsOp(steps, back, unchecked=unchecked)] if steps or back else []


def _mend_core(container: OpContainer, compared: Comparison) -> None:
    """Leave to people what loses data, and our items out of tables, which are created without them."""
    lost: list[str] = []
    _put_children_first(container, compared.dropped)
    dropped = [(op.schema, op.table_name) for op in container.ops if isinstance(op, ops.DropTableOp)]
    for op in list(container.ops):
        if isinstance(op, ops.ModifyTableOps) and (op.schema, op.table_name) in dropped:
            # Its indexes go with it, and come back with it.
            container.ops.remove(op)
        elif isinstance(op, ops.CreateTableOp):
            op.info.pop(ITEMS, None)
            op.__class__ = MissingTableOp
            op.columns = [_mended(item) for item in op.columns]
        elif isinstance(op, ops.ModifyTableOps):
            lost += _losses_in(op, compared)
        elif isinstance(op, ops.DropTableOp):
            lost.append(f"table {op.table_name}{_renamed(op, container)}")
            again = restoring_table(quoted(op.schema, op.table_name), compared.dropped)
            container.ops[container.ops.index(op)] = UndecidedOp(op, _title(op), again)
    if lost:
        what = " and ".join(lost)
        container.ops.insert(0, _refusing(f"decide about {what}: not in the models, and lost when dropped."))


def _renamed(dropped: ops.DropTableOp, container: OpContainer) -> str:
    """Ask whether a table with the same columns is the same one under another name."""
    columns = dropped.to_table().columns.keys()
    alike = [
        op
        for op in container.ops
        if isinstance(op, ops.CreateTableOp)
        and op.schema == dropped.schema
        and sorted(op.to_table().columns.keys()) == sorted(columns)
    ]
    if not alike:
        return ""
    schema = f", schema={dropped.schema!r}" if dropped.schema else ""
    renaming = f"op.rename_table({dropped.table_name!r}, {alike[0].table_name!r}{schema})"
    called = " or ".join(op.table_name for op in alike)
    return f" (or is it what {called} was called? then let this revision do nothing but {renaming})"


def _put_children_first(container: OpContainer, dropped: Facts) -> None:
    """Put tables that are dropped before those that they inherit from."""
    drops = [op for op in container.ops if isinstance(op, ops.DropTableOp)]
    children = {
        fact.name: fact.on for fact in dropped.values() if fact.kind == "inheritance" and fact.attributes
    }
    parents = {
        (fact.on, children[fact.name])
        for fact in dropped.values()
        if fact.kind == "inheritance" and not fact.attributes and fact.name in children
    }
    ordered: list[MigrateOperation] = []

    def put(op: MigrateOperation) -> None:
        for each in drops:
            if each not in ordered and (_relation(op), _relation(each)) in parents:
                put(each)
        if op not in ordered:
            ordered.append(op)

    for op in drops:
        put(op)
    places = iter(ordered)
    container.ops[:] = [next(places) if op in drops else op for op in container.ops]


def _mended(item: Any) -> Any:
    """Give a column or CHECK as the core writes it right.

    Of an enum type that is there before; with texts in which neither % is doubled nor : starts a parameter.
    """
    if isinstance(item, CheckConstraint):
        return (
            CheckConstraint(_Verbatim(_sql(item.sqltext)), name=item.name)
            if not item.dialect_kwargs
            else item
        )
    if not isinstance(item, Column):
        return item
    column: Column[Any] = item._copy()
    default = item.server_default
    if isinstance(default, DefaultClause) and isinstance(default.arg, ClauseElement):
        column.server_default = DefaultClause(_Verbatim(_sql(default.arg)))
    column.type = _never_created(item.type)
    return column


def _never_created(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Give a type that the core does not create again where it is an enum type, or an array of one."""
    enum = enum_in(type_)
    if enum is None:
        return type_
    own = native(type_)
    if not isinstance(own, ARRAY):
        return postgresql.ENUM(*enum.enums, name=enum.name, schema=enum.schema, create_type=False)
    return _EnumArray(_never_created(own.item_type), dimensions=own.dimensions)


class _EnumArray(ARRAY[Any]):
    """An array that is written as it says itself: Alembic looks for its items by a pattern."""

    __module__ = "sqlalchemy.dialects.postgresql"
    __visit_name__ = "enum_array"

    def __repr__(self) -> str:
        dimensions = f", dimensions={self.dimensions}" if self.dimensions else ""
        return f"ARRAY(postgresql.{self.item_type!r}{dimensions})"


@compiles(_EnumArray)
def _compile_array(type_: _EnumArray, compiler: Any, **kw: Any) -> Any:
    return compiler.visit_ARRAY(type_, **kw)


class _Verbatim(TextClause):
    """SQL that is written as it is."""

    inherit_cache = False

    def __init__(self, sql: str) -> None:
        super().__init__("")
        self.text = sql


@compiles(_Verbatim)
def _compile_verbatim(element: _Verbatim, compiler: Any, **kw: Any) -> str:
    del compiler, kw
    # What is written here is read by text() again.
    return re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", element.text)


def _sql(clause: ClauseElement) -> str:
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    return str(
        clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True, "include_table": False})
    )


def _losses_in(table: ops.ModifyTableOps, compared: Comparison) -> list[str]:
    lost = []
    table.ops.sort(key=_is_generated)
    added = [op.column for op in table.ops if isinstance(op, ops.AddColumnOp)]
    relation = quoted(table.schema, table.table_name)
    for op in list(table.ops):
        if isinstance(op, ops.AddColumnOp):
            op.if_not_exists = True
            op.column = _mended(op.column)
            # Of another class, and otherwise as the core has made it.
            op.__class__ = MissingColumnOp
            assert isinstance(op, MissingColumnOp)
            op.rewrites = ("type", relation, op.column.name) in compared.rewriting
            notes = _notes_on_adding(op, relation, compared)
            if notes:
                table.ops.insert(table.ops.index(op), NoteOp(*notes))
    for index, op in enumerate(table.ops):
        if isinstance(op, ops.DropColumnOp):
            table.ops[index] = UndecidedOp(
                op, _title(op), restoring(relation, op.column_name, compared.found)
            )
            alike = [column.name for column in added if _alike(column, op.to_column())]
            renamed = f" (or is it what {' or '.join(alike)} was called?)" if alike else ""
            lost.append(f"column {op.column_name} of {op.table_name}{renamed}")
    return lost


def _notes_on_adding(op: MissingColumnOp, relation: str, compared: Comparison) -> list[str]:
    name = op.column.name
    notes = []
    if op.rewrites:
        notes.append(f"# ACCESS EXCLUSIVE on {relation} while it is rewritten: nobody reads it then.")
    not_null = compared.declared.get(("not null", relation, name))
    filled = ("default", "identity", "generated column")
    if (
        not_null is not None
        and not_null.attributes["value"] == "true"
        and not any((kind, relation, name) in compared.declared for kind in filled)
    ):
        notes.append(f"# {quoted(name)} is NOT NULL without a default: this fails where {relation} has rows.")
    return notes


def _is_generated(op: MigrateOperation) -> int:
    """Put columns that use others behind them when added, and before them when dropped."""
    if isinstance(op, ops.AddColumnOp):
        return int(op.column.computed is not None)
    return -int(isinstance(op, ops.DropColumnOp) and op.to_column().computed is not None)


def _alike(column: Column[Any], other: Column[Any]) -> bool:
    return column.type._type_affinity is other.type._type_affinity


def _refusing(message: str) -> NoteOp:
    # Alembic prints it without a traceback. Both lines go once that is decided.
    return NoteOp("from alembic.util import CommandError", f"raise CommandError({_quoted(message)})")


def stop_core(autogen_context: AutogenContext, table: Table | None) -> PriorityDispatchResult:
    """Keep the core from comparing what is compared here."""
    ours = table is not None and is_managed(table, autogen_context.metadata or ())
    return PriorityDispatchResult.STOP if ours else PriorityDispatchResult.CONTINUE


@renderers.dispatch_for(NoteOp)
def _render_note(autogen_context: AutogenContext, op: NoteOp) -> list[str]:
    del autogen_context
    return list(op.lines)


@renderers.dispatch_for(UndecidedOp)
def _render_undecided(autogen_context: AutogenContext, op: UndecidedOp) -> list[str]:
    rendered = "\n".join(render_op(autogen_context, op.op))
    return [f"# {line}" for line in rendered.splitlines()]


@renderers.dispatch_for(ReportOp)
def _render_report(autogen_context: AutogenContext, op: ReportOp) -> list[str]:
    del autogen_context, op
    return []


@renderers.dispatch_for(StatementsOp)
def _render_statements(autogen_context: AutogenContext, op: StatementsOp) -> list[str]:
    prefix = (autogen_context.opts or {}).get("alembic_module_prefix") or "op."
    return [_executed(prefix, _if_exists(statement)) for statement in op.statements]


@renderers.dispatch_for(MissingTableOp)
def _render_missing_table(autogen_context: AutogenContext, op: MissingTableOp) -> list[str]:
    prefix = (autogen_context.opts or {}).get("alembic_module_prefix") or "op."
    created = renderers.dispatch(ops.CreateTableOp(op.table_name, op.columns))(autogen_context, op)
    return [created, _executed(prefix, only_what_is_granted(quoted(op.schema, op.table_name)))]


@renderers.dispatch_for(StepsOp)
def _render(autogen_context: AutogenContext, op: StepsOp) -> list[str]:
    prefix = (autogen_context.opts or {}).get("alembic_module_prefix") or "op."
    lines: list[str] = []
    functions = [each for each, _ in op.steps if each.fact.kind == "function" and each.declared]
    # For the rest of the transaction; what is outside of it comes before or after.
    unchecked = any(map(_is_sql, functions)) and (
        op.unchecked or len({each.fact.key for each in functions}) > 1
    )
    for outside, placed in groupby(_placed(op.steps), lambda step: step[0]):
        steps = [(difference, statement) for _, difference, statement in placed]
        if not outside:
            if unchecked:
                lines.append(_executed(prefix, "SET LOCAL check_function_bodies = off"))
            for difference, statement in steps:
                lines += [] if difference.with_table else _warnings(difference, statement)
                lines += _inside(prefix, difference, statement)
            continue
        block: list[str] = []
        for difference, statement in steps:
            if statement.startswith(_CONCURRENTLY) and not difference.with_table:
                block += _concurrently(prefix, statement)
            else:
                block += _warnings(difference, statement)
                block += _inside(prefix, difference, statement, indent=8)
        inner = re.sub("(?m)^", "    ", "\n".join(block))
        lines.append(f"with {prefix}get_context().autocommit_block():\n{inner}")
    return lines


def _placed(steps: Iterable[Step]) -> Iterator[tuple[bool, Difference, str]]:
    """Say of each statement whether it runs outside of the transaction."""
    is_built = False
    for difference, statement in steps:
        outside = is_built or _is_outside(difference, statement)
        # What comes after something that was built may need it.
        is_needed = not statement.startswith("DROP INDEX") and not adds_values(difference)
        is_built = outside and (is_built or is_needed)
        yield outside, difference, statement


def _is_outside(difference: Difference, statement: str) -> bool:
    return not difference.with_table and (
        statement.startswith(_CONCURRENTLY) or " VALIDATE CONSTRAINT " in statement or adds_values(difference)
    )


def _inside(prefix: str, difference: Difference, statement: str, indent: int = 4) -> list[str]:
    if difference.with_table:
        return [_executed(prefix, statement, indent=indent)]
    return [_executed(prefix, each, indent=indent) for each in _safe_to_run_again(difference, statement)]


def _safe_to_run_again(difference: Difference, statement: str) -> Iterator[str]:
    """Give a statement so that it can run twice.

    A block outside of the transaction commits what came before it: where it fails, the revision is run
    again as a whole.
    """
    declared = difference.declared
    kinds = ("check constraint", "foreign key", "policy", "trigger", "statistics", "rule")
    if declared and difference.found is None and declared.kind in kinds and statement == declared.create[0]:
        for drop in declared.drop:
            yield _if_exists(drop)
    yield _if_exists(statement)


def _if_exists(statement: str) -> str:
    return re.sub(
        r"^(DROP (?:POLICY|TRIGGER|STATISTICS|RULE|FUNCTION|SEQUENCE)"
        r'|ALTER TABLE (?:[^" ]|"(?:[^"]|"")*")+ DROP CONSTRAINT) (?!IF EXISTS )',
        r"\1 IF EXISTS ",
        statement.replace("CREATE SEQUENCE ", "CREATE SEQUENCE IF NOT EXISTS ")
        if statement.startswith("CREATE SEQUENCE ")
        else statement,
    )


def _is_sql(difference: Difference) -> bool:
    declared = difference.declared
    return declared is not None and declared.attributes.get("language") == "sql"


def _warnings(difference: Difference, statement: str) -> list[str]:
    if difference.fact.kind == "type" or " SET LOGGED" in statement or " SET UNLOGGED" in statement:
        return [
            f"# ACCESS EXCLUSIVE on {difference.fact.on} while it may be rewritten: nobody reads it then."
        ]
    if statement.startswith("DO $owner$"):
        return ["# It gets its owner back where whoever migrates may act as that role."]
    if statement.startswith("DO $triggers$"):
        return ["# Its triggers are a superuser's to disable; for anybody else they stay enabled."]
    if difference.fact.kind == "setting":
        parameter = quoted(*difference.fact.name.split("."))
        return [f"# Needs a superuser, or SET ON PARAMETER {parameter}; what is so by then is passed over."]
    return []


# A quoted name may have an ON of its own.
_INDEX_ON = re.compile(r'\s*("(?:[^"]|"")+"|\S+) ON (.*)', re.DOTALL)


def _concurrently(prefix: str, statement: str) -> list[str]:
    """Build or drop an index while writers go on; a failed try leaves nothing that the next would keep."""
    start = next(start for start in _CONCURRENTLY if statement.startswith(start))
    rest = statement.removeprefix(start)
    if start == "DROP INDEX":
        return [_executed(prefix, f"DROP INDEX CONCURRENTLY IF EXISTS{rest}", indent=8)]
    name, relation = _INDEX_ON.match(rest).groups()  # type: ignore[union-attr]
    schema = relation.split(".")[0] + "." if "." in relation.split(" USING ")[0] else ""
    return [
        "# It waits for running transactions, but nobody waits for it.",
        _executed(
            prefix, "SELECT set_config('ddl.lock_timeout', current_setting('lock_timeout'), false)", indent=8
        ),
        _executed(prefix, "SET lock_timeout = 0", indent=8),
        _executed(prefix, f"DROP INDEX CONCURRENTLY IF EXISTS {schema}{name}", indent=8),
        _executed(prefix, f"{start} CONCURRENTLY{rest}", indent=8),
        _executed(
            prefix, "SELECT set_config('lock_timeout', current_setting('ddl.lock_timeout'), false)", indent=8
        ),
    ]


# What text() takes for a parameter, and what it takes for one that was escaped.
_NOT_FOR_TEXT = re.compile(r"(?<![:\w\\]):\w|\\:")


def _executed(prefix: str, statement: str, *, indent: int = 4) -> str:
    """Write SQL as Python. Alembic indents lines anew, so no literal may go over several."""
    before, after = f"{prefix}execute(", ")"
    if _NOT_FOR_TEXT.search(statement):
        # DDL() sends it as it is; escapes of text() do not come back alike from each place.
        before, after = f"{prefix}execute(sa.DDL(", "))"
        statement = statement.replace("%", "%%")
    whole = f"{before}{_quoted(statement)}{after}"
    if indent + len(whole) <= _LINE_LENGTH:
        return whole
    lines: Iterable[str] = statement.splitlines(keepends=True)
    return f"{before}\n" + "".join(f"    {_quoted(line)}\n" for line in lines) + after


def _quoted(value: str) -> str:
    """Write a text in double quotes, unless that needs more escapes."""
    written = repr(value)
    if value.count('"') > value.count("'") or written[0] == '"':
        return written
    inner = written[1:-1].replace("\\'", "'").replace('"', '\\"')
    return f'"{inner}"'
