"""Differences as operations of Alembic: plain SQL in the right order, each with its way back."""

import re
from collections.abc import Iterable, Iterator, Sequence
from logging import getLogger
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import render_op
from alembic.operations import ops
from alembic.operations.ops import MigrateOperation, OpContainer, UpgradeOps
from alembic.util import CommandError, PriorityDispatchResult
from sqlalchemy import Column, Table

from .compare import Difference
from .declared import ComparisonError, compare, managed_tables
from .item import ITEMS, DeclarationError, only_what_is_granted, quoted
from .summary import Summary

log = getLogger(__name__)

# What others need comes first; it is dropped the other way round. What is built outside of a transaction
# comes last, since all before it is committed then.
_ORDER = (
    "schema",
    "function",
    "owner",
    "persistence",
    "of type",
    "inheritance",
    "type",
    "generated column",
    "sequence",
    "default",
    "storage",
    "compression",
    "statistics target",
    "column option",
    "storage parameter",
    "statistics",
    "rule",
    "trigger",
    "policy",
    "row security",
    "grant",
    "default privilege",
    "setting",
    "column comment",
    "table comment",
    "not null",
    "identity",
    "identity sequence",
    "index",
    "primary key",
    "unique constraint",
    "exclusion constraint",
    "check constraint",
    "foreign key",
    "replica identity",
    "clustering",
    "other object",
)
# Before tables and columns are made, and after they are dropped.
_AROUND_TABLES = ("schema", "function")
# What replaced things may still use.
_DROPPED_LAST = ("schema", "function", "sequence")
_CONCURRENTLY = ("CREATE INDEX", "CREATE UNIQUE INDEX", "DROP INDEX")
_LINE_LENGTH = 110


class ChangeOp(MigrateOperation):
    """One difference, for those who read the list of operations."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference

    def to_diff_tuple(self) -> tuple[str, str, str]:
        """Give the kind of change, which thing it is, and what differs, in words."""
        declared, found = self.difference.declared, self.difference.found
        verb = "add" if found is None else "remove" if declared is None else "modify"
        return (
            f"{verb}_{self.difference.fact.kind.replace(' ', '_')}",
            self.difference.title,
            self.difference.words,
        )


class FactsOp(OpContainer):
    """Differences that are settled together.

    :param unchecked: whether tables or columns that SQL functions name may be missing as yet.
    """

    def __init__(self, differences: Sequence[Difference], *, unchecked: bool = False) -> None:
        super().__init__([ChangeOp(difference) for difference in differences])
        self.differences = differences
        self.unchecked = unchecked

    def reverse(self) -> "FactsOp":
        """Give the way back."""
        return FactsOp([difference.reverse for difference in self.differences], unchecked=self.unchecked)

    def statements(self) -> Iterator[tuple[Difference, str]]:
        """Give the statements in an order in which they can run."""
        ordered = sorted(self.differences, key=lambda difference: _ORDER.index(difference.fact.kind))
        dropped = [difference for difference in reversed(ordered) if difference.declared is None]
        # With its table goes all that is on it.
        early = [d for d in dropped if not d.with_table and d.fact.kind not in _DROPPED_LAST]
        late = [d for d in dropped if not d.with_table and d.fact.kind in _DROPPED_LAST]
        made = [difference for difference in ordered if difference.declared is not None]
        for difference in (*early, *made, *late):
            for statement in difference.statements:
                yield difference, statement


class NoteOp(OpContainer):
    """Lines in one direction of a revision that change nothing."""

    def __init__(self, *lines: str) -> None:
        super().__init__([])
        self.lines = lines

    def reverse(self) -> "NoteOp":
        """Give nothing: it is about one direction."""
        return NoteOp()


class UndecidedOp(MigrateOperation):
    """An operation that loses data: written as a comment, since somebody has to decide it."""

    def __init__(self, op: Any) -> None:
        self.op = op

    def reverse(self) -> MigrateOperation:
        """Give the way back of the operation, which restores no data."""
        reverse: MigrateOperation = self.op.reverse()
        return reverse

    def to_diff_tuple(self) -> Any:
        """Give what the operation itself gives."""
        return self.op.to_diff_tuple()


def compare_declared(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Add what differs to the operations of an autogenerate run.

    :raises CommandError: when PostgreSQL refuses a declared item, or nothing can be compared.
    """
    connection, metadata = autogen_context.connection, autogen_context.metadata
    assert connection is not None
    assert metadata is not None
    options = autogen_context.opts or {}
    version_table = quoted(
        options.get("version_table_schema"), options.get("version_table") or "alembic_version"
    )
    try:
        found = compare(
            connection,
            metadata,
            include=lambda table: autogen_context.run_object_filters(table, table.name, "table", False, None),
            known=[version_table],
        )
    except DeclarationError as error:
        raise CommandError(f"the models declare what PostgreSQL refuses. {error}") from error
    except ComparisonError as error:
        raise CommandError(f"nothing was compared: {error}") from error
    allowed = set(options.get("allow_extra") or ())
    # The schema of the version table is there at the latest when a revision runs, and stays.
    of_version_table = ("schema", options.get("version_table_schema"))
    found = [
        difference
        for difference in found
        if not _is_allowed(difference, allowed) and difference.fact.key[:2] != of_version_table
    ]
    for difference in found:
        log.info("%s", difference)
    _mend_core(upgrade_ops)
    _arrange(upgrade_ops, found)
    template_args = options.get("template_args")
    if template_args is not None:
        template_args["summary"] = Summary(upgrade_ops, found)
    return PriorityDispatchResult.CONTINUE


def _is_allowed(difference: Difference, allowed: set[str]) -> bool:
    """Tell whether the options allow what is there; what is declared is never allowed to differ."""
    extra = difference.declared is None or not difference.fact.drop
    return extra and difference.found is not None and difference.title in allowed


def _arrange(upgrade_ops: UpgradeOps, found: Sequence[Difference]) -> None:
    tables_change = bool(upgrade_ops.ops)
    named = [difference for difference in found if difference.fact.kind == "other object"]
    dropped = [d for d in found if d.declared is None and d not in named]
    around = [d for d in found if d.declared is not None and d.fact.kind in _AROUND_TABLES]
    rest = [d for d in found if d.declared is not None and d not in around]
    late = [d for d in dropped if d.fact.kind in _DROPPED_LAST]
    early = [d for d in dropped if d not in late]

    def op(differences: Sequence[Difference]) -> list[MigrateOperation]:
        return [FactsOp(differences, unchecked=tables_change)] if differences else []

    upgrade_ops.ops[:] = [*op(early), *op(around), *upgrade_ops.ops, *op(rest), *op(late)]
    if named:
        names = ", ".join(difference.fact.name for difference in named)
        upgrade_ops.ops[:0] = [
            FactsOp(named),
            NoteOp(_refusal(f"not of a kind that can be declared: {names}.")),
        ]


def _mend_core(container: OpContainer) -> None:
    """Leave to people what loses data, and our items out of tables, which are created without them."""
    lost: list[str] = []
    for op in list(container.ops):
        if isinstance(op, ops.CreateTableOp):
            op.info.pop(ITEMS, None)
        elif isinstance(op, ops.ModifyTableOps):
            lost += _losses_in(op)
        elif isinstance(op, ops.DropTableOp):
            lost.append(f"table {op.table_name}")
            container.ops[container.ops.index(op)] = UndecidedOp(op)
    if lost:
        what = " and ".join(lost)
        container.ops.insert(
            0, NoteOp(_refusal(f"decide about {what}: not in the models, and lost when dropped."))
        )


def _losses_in(table: ops.ModifyTableOps) -> list[str]:
    lost = []
    added = [op.column for op in table.ops if isinstance(op, ops.AddColumnOp)]
    for op in table.ops:
        if isinstance(op, ops.AddColumnOp):
            op.if_not_exists = True
    for index, op in enumerate(table.ops):
        if isinstance(op, ops.DropColumnOp):
            table.ops[index] = UndecidedOp(op)
            alike = [column.name for column in added if _alike(column, op.to_column())]
            renamed = f" (or is it what {' or '.join(alike)} was called?)" if alike else ""
            lost.append(f"column {op.column_name} of {op.table_name}{renamed}")
    return lost


def _alike(column: Column[Any], other: Column[Any]) -> bool:
    return column.type._type_affinity is other.type._type_affinity


def _refusal(message: str) -> str:
    return f"raise NotImplementedError({_quoted(message)})"


def stop_core(autogen_context: AutogenContext, table: Table | None) -> PriorityDispatchResult:
    """Keep the core from comparing what is compared here."""
    ours = table is not None and table in managed_tables(autogen_context.metadata or ())
    return PriorityDispatchResult.STOP if ours else PriorityDispatchResult.CONTINUE


@renderers.dispatch_for(NoteOp)
def _render_note(autogen_context: AutogenContext, op: NoteOp) -> list[str]:
    del autogen_context
    return list(op.lines)


@renderers.dispatch_for(UndecidedOp)
def _render_undecided(autogen_context: AutogenContext, op: UndecidedOp) -> list[str]:
    rendered = "\n".join(render_op(autogen_context, op.op))
    return [f"# {line}" for line in rendered.splitlines()]


@renderers.dispatch_for(FactsOp)
def _render(autogen_context: AutogenContext, op: FactsOp) -> list[str]:
    prefix = (autogen_context.opts or {}).get("alembic_module_prefix") or "op."
    lines: list[str] = []
    outside: list[str] = []
    new_tables = dict.fromkeys(d.fact.on for d in op.differences if d.with_table and d.declared)
    if op.unchecked and any(_is_sql(difference) for difference in op.differences):
        lines.append(_executed(prefix, "SET LOCAL check_function_bodies = off"))
    for table in new_tables:
        lines.append(_executed(prefix, only_what_is_granted(table)))
    for difference, statement in op.statements():
        if difference.with_table:
            lines.append(_executed(prefix, statement))
        elif statement.startswith(_CONCURRENTLY):
            outside += _concurrently(prefix, statement)
        elif " VALIDATE CONSTRAINT " in statement or outside:
            outside.append(_executed(prefix, statement, indent=8))
        else:
            lines += _warnings(difference, statement)
            lines += [_executed(prefix, each) for each in _safe_to_run_again(difference, statement)]
    if outside:
        block = "\n".join(outside)
        lines.append(f"with {prefix}get_context().autocommit_block():\n" + re.sub("(?m)^", "    ", block))
    return lines


def _safe_to_run_again(difference: Difference, statement: str) -> Iterator[str]:
    """Give a statement so that it can run twice.

    A block outside of the transaction commits what came before it: where it fails, the revision is run
    again as a whole.
    """
    declared = difference.declared
    kinds = ("constraint", "policy", "trigger", "statistics", "rule")
    if declared and difference.found is None and declared.kind in kinds and statement == declared.create[0]:
        for drop in declared.drop:
            yield _if_exists(drop)
    yield _if_exists(statement)


def _if_exists(statement: str) -> str:
    return re.sub(
        r"^(DROP (?:POLICY|TRIGGER|STATISTICS|RULE|FUNCTION)|ALTER TABLE \S+ DROP CONSTRAINT) ",
        r"\1 IF EXISTS ",
        statement,
    )


def _is_sql(difference: Difference) -> bool:
    declared = difference.declared
    return declared is not None and declared.attributes.get("language") == "sql"


def _warnings(difference: Difference, statement: str) -> list[str]:
    if difference.fact.kind == "type" or " SET LOGGED" in statement or " SET UNLOGGED" in statement:
        return [
            f"# ACCESS EXCLUSIVE on {difference.fact.on} while it may be rewritten: nobody reads it then."
        ]
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
