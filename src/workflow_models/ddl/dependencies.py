"""What uses what, as PostgreSQL records it: who stands in the way of a change, and is lost with it."""

# SQL reads better in its own lines.
# ruff: noqa: E501

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from .facts import Fact, Target
from .relation import STATISTICS_NAME

Key = tuple[str, str, str]

# PostgreSQL carries over what else uses a column when that gets another type.
# A foreign key could be, but for an instant the two sides may not be comparable.
_STAND_IN_THE_WAY_OF_A_TYPE = ("policy", "trigger", "generated column", "rule", "function", "foreign key")


@dataclass(frozen=True)
class Dependency:
    """One thing uses another.

    :param key: of the fact that uses it; None where that is nothing of ours.
    :param user: what uses it, in PostgreSQL's words.
    :param used: the key of the fact that is used; of a column that of its type.
    """

    key: Key | None
    user: str
    used: Key

    def is_broken_by(self, fact: Fact) -> bool:
        """Tell whether it has to go while a fact is not there, or is being altered."""
        if fact.kind == "generated column":
            # Its column is dropped.
            return self.used == ("type", fact.on, fact.name)
        if self.used != fact.key:
            return False
        return fact.kind != "type" or self.key is None or self.key[0] in _STAND_IN_THE_WAY_OF_A_TYPE


_CONSTRAINT = """CASE contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint' WHEN 'x' THEN 'exclusion constraint'
    WHEN 'c' THEN 'check constraint' ELSE 'foreign key' END"""
_FUNCTION = """SELECT 'function' AS kind, n.nspname::text AS place,
    quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')' AS name
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = ANY (CAST(:schemas AS text[]))"""
_QUERY = text(f"""
WITH target AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:targets AS jsonb)) AS target (oid oid, relation text)
)
SELECT DISTINCT dependant.kind, dependant.place, dependant.name,
    CASE WHEN r.oid IS NULL THEN pg_describe_object(d.classid, d.objid, 0) ELSE pg_describe_object('pg_class'::regclass, r.ev_class, 0) END,
    used.kind, used.place, used.name
FROM pg_depend AS d
LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
CROSS JOIN LATERAL (
    SELECT 'type' AS kind, relation AS place, attname::text AS name FROM target JOIN pg_attribute AS a ON attrelid = target.oid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = target.oid AND a.attnum = d.refobjsubid AND a.attnum > 0
    UNION ALL
    {_FUNCTION} AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
    UNION ALL
    SELECT {_CONSTRAINT}, relation, conname::text FROM target JOIN pg_constraint AS c ON conrelid = target.oid
    WHERE contype IN ('p', 'u', 'x') AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = conindid
        OR d.refclassid = 'pg_constraint'::regclass AND d.refobjid = c.oid)
    UNION ALL
    SELECT 'index', relation, relname::text FROM target JOIN pg_index ON indrelid = target.oid
    JOIN pg_class AS c ON c.oid = indexrelid WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
) AS used
LEFT JOIN LATERAL (
    SELECT 'policy' AS kind, relation AS place, polname::text AS name FROM target JOIN pg_policy AS o ON polrelid = target.oid
    WHERE d.classid = 'pg_policy'::regclass AND d.objid = o.oid
    UNION ALL
    SELECT 'trigger', relation, tgname::text FROM target JOIN pg_trigger AS o ON tgrelid = target.oid
    WHERE d.classid = 'pg_trigger'::regclass AND d.objid = o.oid
    UNION ALL
    SELECT CASE attgenerated WHEN '' THEN 'default' ELSE 'generated column' END, relation, attname::text
    FROM target JOIN pg_attrdef AS o ON adrelid = target.oid JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
    WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = o.oid
    UNION ALL
    SELECT {_CONSTRAINT}, relation, conname::text FROM target JOIN pg_constraint AS o ON conrelid = target.oid
    WHERE d.classid = 'pg_constraint'::regclass AND d.objid = o.oid
    UNION ALL
    SELECT 'index', relation, relname::text FROM target JOIN pg_index ON indrelid = target.oid
    JOIN pg_class AS o ON o.oid = indexrelid WHERE d.classid = 'pg_class'::regclass AND d.objid = o.oid
    UNION ALL
    SELECT 'statistics', relation, {STATISTICS_NAME} FROM target JOIN pg_statistic_ext AS s ON stxrelid = target.oid
    JOIN pg_namespace AS n ON n.oid = s.stxnamespace
    WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid = s.oid
    UNION ALL
    SELECT 'rule', relation, rulename::text FROM target JOIN pg_rewrite AS o ON ev_class = target.oid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = o.oid
    UNION ALL
    {_FUNCTION} AND d.classid = 'pg_proc'::regclass AND d.objid = p.oid
) AS dependant ON true
-- A constraint's own index and triggers come and go with it.
WHERE d.deptype IN ('n', 'a') AND d.objid >= 16384
    AND NOT (d.classid = 'pg_class'::regclass AND dependant.kind IS NULL AND d.deptype = 'a')
    -- NOT NULL goes with its column, and minds no other type.
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE d.classid = 'pg_constraint'::regclass AND oid = d.objid AND contype = 'n')
""")


def read(connection: Connection, targets: Iterable[Target], schemas: Sequence[str]) -> list[Dependency]:
    """Read what uses the columns, keys and indexes of tables, and the functions of schemas."""
    of = json.dumps([{"oid": target.oid, "relation": target.relation} for target in targets])
    rows: Iterable[Any] = connection.execute(_QUERY, {"targets": of, "schemas": list(schemas)})
    return [
        Dependency((kind, place, name) if kind else None, user, tuple(used))
        for kind, place, name, user, *used in rows
    ]
