"""Differences as operations of Alembic: plain SQL in the right order, each with its way back."""

import re
from collections.abc import Iterator, Sequence
from logging import getLogger

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation, OpContainer, UpgradeOps
from alembic.util import CommandError, PriorityDispatchResult
from sqlalchemy import Table

from .compare import Difference
from .declared import compare, managed_tables
from .item import DeclarationError

log = getLogger(__name__)

# What others need comes first; it is dropped the other way round.
_ORDER = (
    "schema",
    "function",
    "persistence",
    "inheritance",
    "default",
    "storage",
    "compression",
    "statistics target",
    "storage parameter",
    "sequence",
    "constraint",
    "index",
    "replica identity",
    "statistics",
    "rule",
    "trigger",
    "policy",
    "row security",
    "grant",
    "comment",
    "table comment",
)
# Cannot run in a transaction, or should not keep its locks until another statement has run.
_OUTSIDE_TRANSACTION = ("CREATE INDEX", "CREATE UNIQUE INDEX", "DROP INDEX")


class ChangeOp(MigrateOperation):
    """One difference, for those who read the list of operations."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference

    def to_diff_tuple(self) -> tuple[str, str]:
        """Give the kind of change and what differs, in words."""
        declared, found = self.difference.declared, self.difference.found
        verb = "add" if found is None else "remove" if declared is None else "modify"
        return f"{verb}_{self.difference.fact.kind.replace(' ', '_')}", str(self.difference)


class FactsOp(OpContainer):
    """The differences of a revision: those that only drop, or all others.

    :param drops: whether found facts that are not declared are dropped, before tables and columns change.
    """

    def __init__(self, differences: Sequence[Difference], *, drops: bool) -> None:
        super().__init__([ChangeOp(difference) for difference in differences])
        self.differences = differences
        self.drops = drops

    def reverse(self) -> "FactsOp":
        """Give the way back, whose place is the mirrored one."""
        return FactsOp([difference.reverse for difference in self.differences], drops=not self.drops)

    def statements(self) -> Iterator[str]:
        """Give the statements in an order in which they can run."""
        ordered = sorted(self.differences, key=lambda difference: _ORDER.index(difference.fact.kind))
        for difference in reversed(ordered) if self.drops else ordered:
            yield from difference.statements


def compare_declared(autogen_context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Add what differs to the operations of an autogenerate run.

    :raises CommandError: when PostgreSQL refuses a declared item.
    """
    assert autogen_context.connection is not None
    assert autogen_context.metadata is not None
    try:
        found = compare(autogen_context.connection, autogen_context.metadata)
    except DeclarationError as error:
        raise CommandError(f"the models declare what PostgreSQL refuses. {error}") from error
    for difference in found:
        log.info("%s", difference)
    drops = [difference for difference in found if difference.declared is None]
    others = [difference for difference in found if difference.declared is not None]
    if drops:
        upgrade_ops.ops.insert(0, FactsOp(drops, drops=True))
    if others:
        upgrade_ops.ops.append(FactsOp(others, drops=False))
    template_args = (autogen_context.opts or {}).get("template_args")
    if template_args is not None:
        template_args["differences"] = [str(difference) for difference in found]
    return PriorityDispatchResult.CONTINUE


def stop_core(autogen_context: AutogenContext, table: Table | None) -> PriorityDispatchResult:
    """Keep the core from comparing what is compared here."""
    ours = table is not None and table in managed_tables(autogen_context.metadata or ())
    return PriorityDispatchResult.STOP if ours else PriorityDispatchResult.CONTINUE


@renderers.dispatch_for(FactsOp)
def _render(autogen_context: AutogenContext, op: FactsOp) -> list[str]:
    prefix = (autogen_context.opts or {}).get("alembic_module_prefix") or "op."
    return [_rendered(prefix, statement) for statement in op.statements()]


def _rendered(prefix: str, statement: str) -> str:
    for start in _OUTSIDE_TRANSACTION:
        if statement.startswith(start):
            concurrent = f"{start} CONCURRENTLY{statement.removeprefix(start)}"
            return _outside_transaction(prefix, concurrent)
    if " VALIDATE CONSTRAINT " in statement:
        return _outside_transaction(prefix, statement)
    return f"{prefix}execute({_literal(statement)})"


def _outside_transaction(prefix: str, statement: str) -> str:
    return f"with {prefix}get_context().autocommit_block():\n    {prefix}execute({_literal(statement)})"


def _literal(statement: str) -> str:
    """Write SQL as Python. Alembic indents lines anew, so no literal may go over several."""
    # text() takes a colon before a word for a parameter.
    lines = re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", statement).splitlines(keepends=True)
    if len(lines) == 1:
        return repr(lines[0])
    return "(\n" + "\n".join(f"    {line!r}" for line in lines) + "\n)"
