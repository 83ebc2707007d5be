"""Refusals, decided for a whole plan before its first step.

A revision module may state, beside ``upgrade()`` and ``downgrade()``:

``upgrade_refusals``
    queries whose every row ``(happened, next_step)`` is a reason not to start an upgrade through it.
    ``next_step`` may be NULL. In place of a query two: the second is asked where the first gives a row.
``upgrade_privileges``
    queries of the same form for what the migrating role may not do: asked before every upgrade of a
    database that has the revision, or gets it.
``creates``
    the indexes, constraints, policies, triggers and statistics that it puts on tables: their names by table.
``downgrade_drops``
    tables and indexes (``"name"``), columns (``"table.column"``) and functions (``"schema.name(types)"``)
    that its downgrade drops, or queries for such names. What depends on them and was not created by a revision refuses the downgrade, since dropping would reach into what others own.
``downgrade_losses``
    what its downgrade loses for good, as a mapping from a description to a query that counts it, or to
    two: the second counts, where the first gives a row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alembic.script import Script
from sqlalchemy import ARRAY, Connection, Text, bindparam, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from . import statements
from .errors import MigrationError
from .locks import sqlstate

_NOT_PERMITTED = "42501"

Ours = Sequence[tuple[str, str]]


def created(revisions: Iterable[Script], declared: Mapping[str, Sequence[str]]) -> Ours:
    """Give what is ours on tables, as pairs of table and name.

    :param revisions: all, not only those of a plan: one may have stopped half way.
    :param declared: names that the models have, for revisions that do not say what they create.
    """
    said = [getattr(revision.module, "creates", {}) for revision in revisions]
    named = [(table, name) for each in (*said, declared) for table, names in each.items() for name in names]
    # An index may have been left by a run that was killed while it replaced it.
    return [*named, *((table, statements.aside(name)) for table, name in named)]


def refuse_upgrade(
    connection: Connection, revisions: Sequence[Script], at: str, *, applied: Iterable[Script]
) -> None:
    """Raise when a revision of the plan cannot be applied to this database.

    :param applied: the revisions that the database has.
    :raises MigrationError: with all reasons, and all statements to run, at once.
    """
    if not revisions:
        return
    queries = [q for each in revisions for q in getattr(each.module, "upgrade_refusals", ())]
    reasons = lacking_privileges(connection, (*applied, *revisions))
    try:
        reasons += [(happened, step) for query in queries for happened, step in _rows(connection, query)]
    except DBAPIError as error:
        # Nor can it be asked, perhaps, by a role that lacks something.
        if not reasons or sqlstate(error) != _NOT_PERMITTED:
            raise
    if reasons:
        raise MigrationError(
            "this database cannot be upgraded yet.",
            happened=list(dict.fromkeys(happened for happened, _ in reasons)),
            unchanged=f"the database is at {at}; nothing was done.",
            next_step=[
                *dict.fromkeys(step for _, step in reasons if step),
                "then run the same command again.",
            ],
        )


def lacking_privileges(connection: Connection, revisions: Iterable[Script]) -> list[tuple[str, str]]:
    """Give what the role lacks for these revisions, each with the statement that gives it."""
    queries = [q for each in revisions for q in getattr(each.module, "upgrade_privileges", ())]
    return [(happened, step) for query in queries for happened, step in _rows(connection, query)]


def refuse_downgrade(
    connection: Connection,
    revisions: Sequence[Script],
    at: str,
    *,
    ours: Ours,
    allow_data_loss: bool,
) -> None:
    """Raise when a downgrade would reach into foreign objects, or lose rows without leave.

    :param ours: what may be dropped along, as ``created()`` gives it.
    :raises MigrationError: naming the objects, or counting what would be lost.
    """
    if not revisions:
        return
    parameters = _named(connection, revisions, ours)
    dependents = sorted(set(connection.scalars(_DEPENDENTS, parameters)))
    if dependents:
        raise MigrationError(
            "the downgrade would drop what other objects need.",
            happened=dependents,
            unchanged=f"the database is at {at}; nothing was done.",
            next_step="drop or change those objects yourself, then run the same command again.",
        )
    losses = list(_losses(connection, revisions)) if not allow_data_loss else []
    if losses:
        raise MigrationError(
            "the downgrade would lose what cannot be derived again.",
            happened=losses,
            unchanged=f"the database is at {at}; nothing was done.",
            next_step="back it up; if it may go, add -x allow-data-loss=true.",
        )


def _losses(connection: Connection, revisions: Iterable[Script]) -> Iterator[str]:
    for revision in revisions:
        for what, query in getattr(revision.module, "downgrade_losses", {}).items():
            for (count,) in _rows(connection, query):
                if count:
                    yield f"{revision.revision}: {count} {what}"


def _rows(connection: Connection, query: str | tuple[str, str]) -> Sequence[Any]:
    """Ask a query; of two the second, where the first gives a row."""
    applies, asked = query if isinstance(query, tuple) else (None, query)
    as_it_is = {"no_parameters": True}
    if applies and not connection.exec_driver_sql(applies, execution_options=as_it_is).first():
        return []
    return connection.exec_driver_sql(asked, execution_options=as_it_is).all()


# Objects that hang on a dropped one. The parts of a dropped table go with it, so those made by the
# revisions are passed over by name, and so are row types, sequences and defaults, which nobody named.
_DEPENDENTS = text("""
WITH dropped AS (
    SELECT 'pg_class'::regclass AS classid, c.oid AS objid, 0 AS objsubid, wanted.name
    FROM unnest(CAST(:tables AS text[])) AS wanted (name) JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, wanted.name
    FROM unnest(CAST(:columns AS text[])) AS wanted (name)
    JOIN pg_attribute AS a
        ON a.attrelid = to_regclass(split_part(wanted.name, '.', 1)) AND a.attname = split_part(wanted.name, '.', 2)
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, wanted.name
    FROM unnest(CAST(:functions AS text[])) AS wanted (name) JOIN pg_proc AS p ON p.oid = to_regprocedure(wanted.name)
), types AS (
    SELECT dropped.name, t.oid FROM dropped JOIN pg_class AS c ON c.oid = dropped.objid JOIN pg_type AS t ON t.oid = c.reltype
    WHERE dropped.classid = 'pg_class'::regclass AND dropped.objsubid = 0
    UNION ALL
    SELECT dropped.name, t.typarray FROM dropped JOIN pg_class AS c ON c.oid = dropped.objid JOIN pg_type AS t ON t.oid = c.reltype
    WHERE dropped.classid = 'pg_class'::regclass AND dropped.objsubid = 0
), hanging AS (
    SELECT dropped.name, d.classid, d.objid, d.objsubid
    FROM dropped JOIN pg_depend AS d
        ON d.refclassid = dropped.classid AND d.refobjid = dropped.objid
        AND (dropped.objsubid = 0 OR d.refobjsubid = dropped.objsubid)
    WHERE d.deptype <> 'i' AND d.classid <> 'pg_type'::regclass
        -- A default goes with its own column.
        AND NOT EXISTS (
            SELECT FROM pg_attrdef AS own JOIN dropped AS gone ON gone.objid = own.adrelid AND gone.objsubid IN (0, own.adnum)
            WHERE d.classid = 'pg_attrdef'::regclass AND own.oid = d.objid AND gone.classid = 'pg_class'::regclass)
    UNION ALL
    SELECT types.name, d.classid, d.objid, d.objsubid
    FROM types JOIN pg_depend AS d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = types.oid
    WHERE d.deptype <> 'i' AND d.classid <> 'pg_type'::regclass
    UNION ALL
    SELECT dropped.name, 'pg_class'::regclass, i.inhrelid, 0
    FROM dropped JOIN pg_inherits AS i ON i.inhparent = dropped.objid
    WHERE dropped.classid = 'pg_class'::regclass
), named AS (
    SELECT hanging.*,
        coalesce(
            (SELECT conname FROM pg_constraint WHERE classid = 'pg_constraint'::regclass AND oid = objid),
            (SELECT polname FROM pg_policy WHERE classid = 'pg_policy'::regclass AND oid = objid),
            (SELECT tgname FROM pg_trigger WHERE classid = 'pg_trigger'::regclass AND oid = objid),
            (SELECT stxname FROM pg_statistic_ext WHERE classid = 'pg_statistic_ext'::regclass AND oid = objid),
            (SELECT relname FROM pg_class WHERE classid = 'pg_class'::regclass AND oid = objid)) AS object_name,
        coalesce(
            (SELECT conrelid FROM pg_constraint WHERE classid = 'pg_constraint'::regclass AND oid = objid),
            (SELECT polrelid FROM pg_policy WHERE classid = 'pg_policy'::regclass AND oid = objid),
            (SELECT tgrelid FROM pg_trigger WHERE classid = 'pg_trigger'::regclass AND oid = objid),
            (SELECT indrelid FROM pg_index WHERE classid = 'pg_class'::regclass AND indexrelid = objid),
            (SELECT stxrelid FROM pg_statistic_ext WHERE classid = 'pg_statistic_ext'::regclass AND oid = objid)) AS on_table
    FROM hanging
)
SELECT DISTINCT pg_describe_object(classid, objid, objsubid) || ' depends on ' || name
FROM named
WHERE NOT (classid = 'pg_class'::regclass
        AND (SELECT relkind FROM pg_class WHERE oid = objid) IN ('S', 't'))
    AND NOT EXISTS (
        SELECT FROM unnest(CAST(:our_tables AS text[]), CAST(:our_names AS text[])) AS ours (table_name, name)
        WHERE ours.name = object_name AND to_regclass(ours.table_name) = on_table)
    AND NOT (classid = 'pg_constraint'::regclass
        AND (SELECT contype FROM pg_constraint WHERE oid = objid) IN ('n', 'p')
        AND on_table IN (SELECT objid FROM dropped))
    -- Goes with the one that it belongs to, as that to a partition does.
    AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE classid = 'pg_constraint'::regclass AND oid = objid AND conparentid <> 0)
    AND NOT (classid = 'pg_class'::regclass
        AND objid IN (SELECT objid FROM dropped))
""")


def _named(connection: Connection | None, revisions: Sequence[Script], ours: Ours) -> dict[str, list[str]]:
    """Give the names that a downgrade drops, and those that revisions have put on tables.

    :param connection: for the names that have to be asked for; without one they are left out.
    """
    drops = [
        name
        for revision in revisions
        for drop in getattr(revision.module, "downgrade_drops", ())
        for name in (_asked(connection, drop) if drop.startswith("SELECT ") else [drop])
    ]
    functions = [drop for drop in drops if "(" in drop]
    columns = [drop for drop in drops if "." in drop and drop not in functions]
    return {
        "functions": functions,
        "columns": columns,
        "tables": [drop for drop in drops if drop not in functions and drop not in columns],
        "our_tables": [table for table, _ in ours],
        "our_names": [name for _, name in ours],
    }


def _asked(connection: Connection | None, query: str) -> list[str]:
    return [name for (name,) in _rows(connection, query)] if connection is not None else []


def downgrade_checks(revisions: Sequence[Script], *, ours: Ours, allow_data_loss: bool) -> Iterator[str]:
    """Give the statements with which a script refuses what ``refuse_downgrade()`` refuses.

    Only stand-ins are left out, whose names have to be asked for: a DROP without CASCADE refuses itself.
    """
    if not revisions:
        return
    dependents = str(
        _DEPENDENTS.bindparams(
            *(bindparam(name, names, ARRAY(Text)) for name, names in _named(None, revisions, ours).items())
        ).compile(
            dialect=postgresql.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
            compile_kwargs={"literal_binds": True},
        )
    )
    yield statements.refuse(
        f"SELECT string_agg(reason, '; ' ORDER BY reason) FROM ({dependents}) AS dependent (reason)",
        "the downgrade would drop what other objects need: %",
        "Drop or change those objects yourself, then run this again.",
    )
    if allow_data_loss:
        return
    for revision in revisions:
        for what, query in getattr(revision.module, "downgrade_losses", {}).items():
            applies, counting = query if isinstance(query, tuple) else ("SELECT", query)
            yield statements.refuse(
                f"SELECT nullif(({counting}), 0)",
                f"{revision.revision} would lose % {what}",
                "Back it up; if it may go, write the script with -x allow-data-loss=true.",
                applies,
            )
