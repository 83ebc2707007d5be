"""The SQL of the operation directives: statements that leave alone what is already as it should be.

Each is one statement, a ``DO`` block where something must be decided, so that it is a transaction of its
own and reads the same in a ``--sql`` script. What is wanted is made on a temporary clone of the table and
printed by PostgreSQL, so that texts of one printer are compared and no SQL is parsed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import md5

from sqlalchemy.dialects import postgresql

# With the driver's own paramstyle each % in a name would be doubled.
_preparer = postgresql.dialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]

NOTICE_SQLSTATE = "0NOTE"
"""SQLSTATE of a NOTICE that the user shall see; PostgreSQL's own notices are not shown."""


def identifier(name: str) -> str:
    """Quote a name where it needs it; a dot in it is a part of it."""
    return str(_preparer.quote(name))


def relation(name: str) -> str:
    """Quote the name of a table, index or sequence, which may have its schema before a dot."""
    return ".".join(identifier(part) for part in name.split(".", 1))


def role_name(name: str) -> str:
    """Quote a role's name; PUBLIC is everybody."""
    return "PUBLIC" if name.upper() == "PUBLIC" else identifier(name)


def literal(value: str) -> str:
    """Quote a text."""
    return "'" + value.replace("'", "''") + "'"


def regclass(table: str) -> str:
    """Give the OID of a table as an expression; an error where it does not exist."""
    return f"{literal(relation(table))}::regclass"


def only_at(version_table: str, revisions: str, *, also_at: str | None = None) -> str:
    """Go on only where the version table says what it shall, and there make the session writable.

    :param also_at: where what follows was done already, and may be done again.
    """
    allowed = literal(revisions) + (f", {literal(also_at)}" if also_at else "")
    return _block(
        f"""
IF to_regclass({literal(version_table)}) IS NOT NULL THEN
    EXECUTE $query$
        SELECT coalesce(string_agg(version_num, ', ' ORDER BY version_num), 'base') FROM {version_table}
    $query$ INTO found;
END IF;
IF found NOT IN ({allowed}) THEN
    RAISE EXCEPTION 'this script starts at {revisions}, and the database is at %', found
        USING HINT = format('Write it anew, from %s on.', found);
END IF;
PERFORM set_config('default_transaction_read_only', 'off', false);""",
        declare="found text := 'base';",
    )


def refuse(query: str, message: str, hint: str, applies: str = "SELECT") -> str:
    """Raise an error where a query for one text gives any; ``%`` in the message stands for it.

    :param applies: the query is asked only where this one gives a row.
    """
    return _block(
        f"""
IF NOT EXISTS ({applies}) THEN
    RETURN;
END IF;
found := ({query});
IF found IS NOT NULL THEN
    RAISE EXCEPTION {literal(message)}, found USING HINT = {literal(hint)};
END IF;""",
        declare="found text;",
    )


def unless(condition: str, statement: str) -> str:
    """Run a statement unless a query for what it does gives a row."""
    return _block(f"IF NOT EXISTS ({condition}) THEN\n    {statement};\nEND IF;")


def table(name: str, columns: str, comments: Mapping[str, str], comment: str) -> str:
    """Create a table, or bring the columns of an existing one to what is declared."""
    oid = regclass(name)
    # What ALTER DEFAULT PRIVILEGES gives on a new table and its sequences is not declared.
    given = f"""SELECT format('REVOKE ALL ON %s %s FROM %s CASCADE',
            CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
        FROM pg_class AS c CROSS JOIN aclexplode(relacl)
        WHERE grantee <> relowner AND (c.oid = {oid} OR c.oid IN (
            SELECT objid FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND refobjid = {oid} AND deptype IN ('a', 'i')))"""
    return _block(
        f"""
IF to_regclass({literal(relation(name))}) IS NULL THEN
    CREATE TABLE {relation(name)} ({columns});
    FOR revoke IN {given}
    LOOP
        EXECUTE revoke;
    END LOOP;
END IF;
{_columns(name, columns, comments)}
IF obj_description({oid}, 'pg_class') IS DISTINCT FROM {literal(comment)} THEN
    COMMENT ON TABLE {relation(name)} IS {literal(comment)};
END IF;""",
        declare="revoke text;",
    )


def columns(name: str, declarations: str, comments: Mapping[str, str]) -> str:
    """Add the columns that a table lacks, and bring the others to what is declared."""
    return _block(_columns(name, declarations, comments))


def _columns(name: str, declarations: str, comments: Mapping[str, str]) -> str:
    temporary = clone(name)
    schema = "(SELECT relnamespace::regnamespace::name FROM pg_class WHERE oid = target)"
    facts = """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type,
            a.attnotnull AND coalesce(n.convalidated, true) AS attnotnull,
            pg_get_expr(d.adbin, d.adrelid) AS value,
            a.attidentity <> '' AS identity, col_description(a.attrelid, a.attnum) AS comment
        FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_constraint AS n ON n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey = ARRAY[a.attnum]
        WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped"""
    return f"""
DECLARE
    target regclass := {regclass(name)};
    wanted record;
    sequence text;
BEGIN
    CREATE TEMPORARY TABLE {temporary} ({declarations});
    FOR wanted IN
        SELECT want.*, found.attname IS NULL AS missing, found.type AS found_type,
            found.value AS found_value, found.attnotnull AS found_notnull, found.comment AS found_comment,
            found.identity AS found_identity,
            {literal(json.dumps(comments))}::jsonb ->> attname AS wanted_comment
        FROM ({facts.format(oid=f"{literal(temporary)}::regclass")}) AS want
        LEFT JOIN ({facts.format(oid="target")}) AS found USING (attname)
    LOOP
        IF wanted.wanted_comment IS DISTINCT FROM wanted.found_comment AND NOT wanted.missing THEN
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', target, wanted.attname, wanted.wanted_comment);
        END IF;
        IF wanted.missing THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', target, wanted.attname, wanted.type)
                || coalesce(' DEFAULT ' || wanted.value, '')
                || CASE WHEN wanted.attnotnull THEN ' NOT NULL' ELSE '' END;
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', target, wanted.attname, wanted.wanted_comment);
            CONTINUE;
        END IF;
        IF wanted.type <> wanted.found_type THEN
            RAISE EXCEPTION 'column %.% has type %, not %', target, wanted.attname, wanted.found_type, wanted.type
                USING ERRCODE = 'datatype_mismatch';
        END IF;
        -- A serial's default names a sequence of its own on either side.
        IF wanted.value LIKE 'nextval(%' AND wanted.found_value LIKE 'nextval(%' THEN
            sequence := pg_get_serial_sequence(target::text, wanted.attname);
            IF (SELECT relname FROM pg_class WHERE oid = to_regclass(sequence))
                <> {literal(name.split(".")[-1])} || '_' || wanted.attname || '_seq' THEN
                EXECUTE format('ALTER SEQUENCE %s RENAME TO %I', sequence,
                    {literal(name.split(".")[-1])} || '_' || wanted.attname || '_seq');
            END IF;
        END IF;
        IF wanted.value LIKE 'nextval(%' AND wanted.found_value IS NULL AND NOT wanted.found_identity THEN
            sequence := pg_get_serial_sequence(target::text, wanted.attname);
            IF sequence IS NULL THEN
                sequence := format('%I.%I', {schema}, {literal(name.split(".")[-1])} || '_' || wanted.attname || '_seq');
                EXECUTE format('CREATE SEQUENCE IF NOT EXISTS %s OWNED BY %s.%I', sequence, target, wanted.attname);
                EXECUTE format('SELECT setval(%L, max(%I)) FROM %s HAVING max(%I) IS NOT NULL',
                    sequence, wanted.attname, target, wanted.attname);
            END IF;
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT nextval(%L)',
                target, wanted.attname, sequence);
        END IF;
        IF wanted.value IS DISTINCT FROM wanted.found_value AND coalesce(wanted.value, '') NOT LIKE 'nextval(%' THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I ', target, wanted.attname)
                || coalesce('SET DEFAULT ' || wanted.value, 'DROP DEFAULT');
        END IF;
        IF wanted.attnotnull <> wanted.found_notnull THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I %s NOT NULL', target, wanted.attname,
                CASE WHEN wanted.attnotnull THEN 'SET' ELSE 'DROP' END);
        END IF;
    END LOOP;
    DROP TABLE {temporary};
END;"""


# Of a row of pg_index: unique, checked at once, and the text behind the name.
INDEX_FACTS = (
    "concat_ws(' ', i.indisunique, i.indimmediate, substring(pg_get_indexdef(i.indexrelid) FROM ' USING .*'))"
)


def index_facts(name: str, oid: str) -> str:
    """Query what an index on a table is."""
    return (
        f"SELECT {INDEX_FACTS} FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
        f"WHERE i.indrelid = {oid} AND c.relname = {literal(name)}"
    )


def index(
    name: str,
    table: str,
    columns: Sequence[str],
    *,
    unique: bool,
    include: Sequence[str],
    where: str | None,
    on_clone: bool = False,
) -> str:
    """Create an index: concurrently on a table, or on its temporary clone."""
    return (
        f"CREATE {'UNIQUE ' if unique else ''}INDEX {'' if on_clone else 'CONCURRENTLY IF NOT EXISTS '}"
        f"{identifier(name)} ON {clone(table) if on_clone else relation(table)} ({', '.join(columns)})"
        + (f" INCLUDE ({', '.join(include)})" if include else "")
        + (f" WHERE {where}" if where else "")
    )


def aside(name: str) -> str:
    """Give the name of an index while another is built in its place; REINDEX CONCURRENTLY calls one so."""
    kept = name.encode()
    if len(kept) > 57:  # with the ending, 63 bytes are left of a name
        kept = kept[:48] + b"_" + md5(kept, usedforsecurity=False).hexdigest()[:8].encode()
    return kept.decode(errors="ignore") + "_ccold"


def set_different_index_aside(name: str, table: str, on_clone: str) -> str:
    """Rename an index that is not what is wanted, or drop it if INVALID: nobody can look before a script."""
    found = f"{index_facts(name, regclass(table))} AND i.indisvalid"
    index = beside(table, name)
    constraint = "SELECT conname FROM pg_constraint WHERE conindid = existing AND contype"
    return _compared(
        table,
        found=found,
        create=on_clone,
        wanted=index_facts(name, _clone_oid(table)),
        declare=f"existing oid := to_regclass({literal(index)});\n    owner text;",
        replace=f"""IF existing IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_index WHERE indexrelid = existing AND indrelid = {regclass(table)}
    ) THEN
        RAISE EXCEPTION '% is there, and is not an index on {relation(table)}', existing::regclass
            USING ERRCODE = 'duplicate_object', HINT = 'Rename it.';
    END IF;
    IF EXISTS ({constraint} = 'f') THEN
        RAISE EXCEPTION 'the index % is not as wanted, and a foreign key needs it', existing::regclass
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = ({constraint} = 'f' LIMIT 1);
    END IF;
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = existing AND indisreplident) THEN
        RAISE EXCEPTION 'the index % is not as wanted, and is the replica identity of its table', existing::regclass
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Give the table another replica identity.';
    END IF;
    owner := ({constraint} IN ('p', 'u', 'x'));
    IF owner IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', {regclass(table)}, owner);
    ELSIF found IS NOT NULL AND to_regclass({literal(beside(table, aside(name)))}) IS NULL THEN
        ALTER INDEX {index} RENAME TO {identifier(aside(name))};
    ELSE
        DROP INDEX IF EXISTS {index};
    END IF;""",
    )


def hand_index_over(name: str, table: str) -> str:
    """Give an index what has been said of the one that it takes the place of, and its mark for CLUSTER."""
    old, new = (f"to_regclass({literal(beside(table, each))})" for each in (aside(name), name))
    return f"""DO $hand_over$
DECLARE
    said text := obj_description({old}, 'pg_class');
BEGIN
    IF said IS NOT NULL AND obj_description({new}, 'pg_class') IS NULL THEN
        EXECUTE format('COMMENT ON INDEX %s IS %L', {new}, said);
    END IF;
    IF EXISTS (
        SELECT FROM pg_index AS old JOIN pg_index AS new ON new.indrelid = old.indrelid AND new.indpred IS NULL
        WHERE old.indexrelid = {old} AND new.indexrelid = {new} AND old.indisclustered
    ) THEN
        ALTER TABLE {relation(table)} CLUSTER ON {identifier(name)};
    END IF;
END $hand_over$"""


def drop_index_aside(name: str, table: str) -> str:
    """Drop the index in whose place another has been built."""
    index = beside(table, aside(name))
    is_there = f"SELECT FROM pg_index WHERE indexrelid = to_regclass({literal(index)}) AND indrelid = {regclass(table)}"
    return unless(f"SELECT WHERE NOT EXISTS ({is_there})", f"DROP INDEX IF EXISTS {index}")


def policy(
    name: str, table: str, command: str, *, to: Sequence[str], using: str | None, check: str | None
) -> str:
    """Create a policy, or replace one of that name that says something else."""
    body = f"FOR {command} TO {', '.join(map(role_name, to))}"
    body += f" USING ({using})" if using else ""
    body += f" WITH CHECK ({check})" if check else ""

    def facts(oid: str) -> str:
        return (
            "SELECT concat_ws(' ', polcmd, polpermissive, ARRAY(SELECT unnest(polroles) ORDER BY 1), "
            "coalesce(pg_get_expr(polqual, polrelid), '-'), coalesce(pg_get_expr(polwithcheck, polrelid), '-')) "
            f"FROM pg_policy WHERE polrelid = {oid} AND polname = {literal(name)}"
        )

    return _compared(
        table,
        found=facts(regclass(table)),
        create=f"CREATE POLICY {identifier(name)} ON {clone(table)} {body}",
        wanted=facts(_clone_oid(table)),
        replace=f"DROP POLICY IF EXISTS {identifier(name)} ON {relation(table)};\n"
        f"    CREATE POLICY {identifier(name)} ON {relation(table)} {body};",
    )


def trigger(name: str, table: str, events: str, action: str) -> str:
    """Create a trigger, or replace one of that name that does something else or is disabled."""

    def facts(oid: str) -> str:
        return (
            "SELECT tgenabled::text || regexp_replace(pg_get_triggerdef(oid), ' ON \\S+ ', ' ') FROM pg_trigger "
            f"WHERE tgrelid = {oid} AND tgname = {literal(name)} AND NOT tgisinternal"
        )

    return _compared(
        table,
        found=facts(regclass(table)),
        create=f"CREATE TRIGGER {identifier(name)} {events} ON {clone(table)} {action}",
        wanted=facts(_clone_oid(table)),
        replace=f"DROP TRIGGER IF EXISTS {identifier(name)} ON {relation(table)};\n"
        f"    CREATE TRIGGER {identifier(name)} {events} ON {relation(table)} {action};",
    )


_ACTIONS = {None: "a", "NO ACTION": "a", "RESTRICT": "r", "CASCADE": "c", "SET NULL": "n", "SET DEFAULT": "d"}


def foreign_key_not_valid(
    name: str,
    source: str,
    referent: str,
    local: Sequence[str],
    remote: Sequence[str],
    *,
    onupdate: str | None,
    ondelete: str | None,
    if_exists: bool,
) -> str:
    """Add a foreign key NOT VALID, or replace one of that name that is another.

    One from these columns to those that is called otherwise gets the name first.

    :param if_exists: only where the referenced table is there, and can be referred to; any key to it will do, and
        so will one to another table.
    """

    def names(oid: str, numbers: str, columns: Sequence[str]) -> str:
        wanted = ", ".join(literal(column) for column in columns)
        return (
            f"ARRAY(SELECT a.attname::text FROM unnest({numbers}) WITH ORDINALITY AS key (attnum, position) "
            f"JOIN pg_attribute AS a ON a.attrelid = {oid} AND a.attnum = key.attnum "
            f"ORDER BY key.position) = ARRAY[{wanted}]"
        )

    # to_regclass() fails in a schema without USAGE.
    schema, _, referent_name = referent.rpartition(".")
    referent_oid = (
        f"(SELECT c.oid FROM pg_class AS c WHERE c.relname = {literal(referent_name)} AND c.relnamespace = "
        f"(SELECT oid FROM pg_namespace WHERE nspname = {literal(schema) if schema else 'current_schema()'}))"
    )
    exists = f"{referent_oid} IS NULL OR" if if_exists else ""
    own = f"conrelid = {regclass(source)} AND contype = 'f' AND {names('conrelid', 'conkey', local)}"
    same = f"{own} AND confrelid = {referent_oid} AND {names('confrelid', 'confkey', remote)}"
    # Before PostgreSQL 18 each one is enforced.
    enforced = "coalesce(to_jsonb(c) ->> 'conenforced', 'true') = 'true'"
    as_declared = f"""confupdtype = '{_ACTIONS[onupdate]}' AND confdeltype = '{_ACTIONS[ondelete]}'
        AND confmatchtype = 's' AND NOT condeferrable AND {enforced}"""
    is_there = f"""EXISTS (
    SELECT FROM pg_constraint AS c
    WHERE conname = {literal(name)} AND {same} AND {as_declared}
)"""
    will_do = f"""EXISTS (
    SELECT FROM pg_constraint AS c
    WHERE {own} AND confrelid <> {referent_oid}
        OR (convalidated OR conname = {literal(name)}) AND {same} AND {enforced}
)"""
    table, given = (each.replace("%", "%%") for each in (relation(source), identifier(name)))
    rename = f"ALTER TABLE {table} RENAME CONSTRAINT %I TO {given}"
    # Two keys would do the same, or each something else, and an API could not choose between them.
    take_over = f"""
DECLARE
    other text := (
        SELECT conname FROM pg_constraint AS c
        WHERE {same} AND NOT EXISTS (
            SELECT FROM pg_constraint WHERE conrelid = {regclass(source)} AND conname = {literal(name)})
        ORDER BY ({as_declared}) DESC, convalidated DESC, conname LIMIT 1);
BEGIN
    IF other IS NOT NULL THEN
        EXECUTE format({literal(rename)}, other);
        IF {is_there} THEN
            RETURN;
        END IF;
    END IF;
END;"""
    actions = "".join(
        f" ON {event} {action}" for event, action in (("UPDATE", onupdate), ("DELETE", ondelete)) if action
    )
    constraint = (
        f"ALTER TABLE {relation(source)} ADD CONSTRAINT {identifier(name)} "
        f"FOREIGN KEY ({', '.join(map(identifier, local))}) "
        f"REFERENCES {relation(referent)} ({', '.join(map(identifier, remote))}){actions} NOT VALID;"
    )
    add = f"""{lock_first(referent)}
{"" if if_exists else take_over}
IF EXISTS (
    SELECT FROM pg_constraint WHERE conrelid = {regclass(source)} AND conname = {literal(name)}
) THEN
    ALTER TABLE {relation(source)} DROP CONSTRAINT {identifier(name)};
END IF;
{constraint}"""
    if if_exists:
        left_out = f"{name} is left out, since {referent} cannot be referred to: "
        local_end = f"""(SELECT relkind IN ('r', 'p') AND {len(local)} = {len(remote)} AND {len(local)} = (
                SELECT count(*) FROM pg_attribute
                WHERE attrelid = pg_class.oid AND attname = ANY (ARRAY[{", ".join(map(literal, local))}]))
            FROM pg_class WHERE oid = {regclass(source)})"""
        validate_it = f"ALTER TABLE {relation(source)} VALIDATE CONSTRAINT {identifier(name)};"
        later = f". Once it can be, run: {constraint} {validate_it}"
        add = f"""
DECLARE
    detail text;
BEGIN
{add}
EXCEPTION WHEN invalid_foreign_key OR datatype_mismatch OR wrong_object_type OR undefined_column
    OR invalid_table_definition OR object_not_in_prerequisite_state
THEN
    -- Not where it is the near end that is wrong.
    IF NOT {local_end} THEN
        RAISE;
    END IF;
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE NOTICE USING ERRCODE = '{NOTICE_SQLSTATE}', MESSAGE = {literal(left_out)}
        || concat_ws('. ', SQLERRM, nullif(rtrim(detail, '.'), '')) || {literal(later)};
END;"""
    return _block(f"""
IF {exists} {will_do if if_exists else is_there} THEN
    RETURN;
END IF;
{add}""")


def lock_first(referent: str, mode: str = "SHARE ROW EXCLUSIVE") -> str:
    """Lock the far end of a foreign key before ALTER TABLE locks the near one.

    Writers go from a definition to its rows: the other way round, each of them would deadlock with us.
    """
    oid = f"to_regclass({literal(relation(referent))})"
    # A view would be locked with all that it reads; nothing can refer to it anyway.
    return f"""IF (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = {oid} AND relkind IN ('r', 'p')) THEN
    LOCK {relation(referent)} IN {mode} MODE;
END IF;"""


def drop_foreign_key(name: str, source: str, referent: str) -> str:
    """Drop a foreign key where it is there."""
    return _block(f"""
IF EXISTS (
    SELECT FROM pg_constraint WHERE conrelid = {regclass(source)} AND conname = {literal(name)}
) THEN
    {lock_first(referent, "ACCESS EXCLUSIVE")}
    ALTER TABLE {relation(source)} DROP CONSTRAINT {identifier(name)};
END IF;""")


def validate(name: str, table: str) -> str:
    """Validate a constraint that is there and NOT VALID."""
    return _block(f"""
IF EXISTS (
    SELECT FROM pg_constraint
    WHERE conrelid = {regclass(table)} AND conname = {literal(name)} AND NOT convalidated
) THEN
    ALTER TABLE {relation(table)} VALIDATE CONSTRAINT {identifier(name)};
END IF;""")


def check_where_rows_allow(name: str, table: str, column: str, condition: str) -> list[str]:
    """Add a CHECK that every row satisfies; else leave it out and say which rows stand in the way.

    A CHECK NOT VALID would not do: it is enforced on every update of an old row.
    """
    add = f"ALTER TABLE {relation(table)} ADD CONSTRAINT {identifier(name)} CHECK ({condition})"

    def facts(oid: str) -> str:
        return (
            "SELECT convalidated || replace(pg_get_constraintdef(oid), ' NOT VALID', '') FROM pg_constraint "
            f"WHERE conrelid = {oid} AND conname = {literal(name)}"
        )

    notice = f"""
        RAISE NOTICE USING ERRCODE = '{NOTICE_SQLSTATE}', MESSAGE =
            {literal(f"{name} was not added, since {table}.{column} has other values: ")} || stray
            || {literal(f". Once they are mended, run: {add} NOT VALID; ALTER TABLE {relation(table)} VALIDATE CONSTRAINT {identifier(name)};")};"""
    stray = (
        "SELECT string_agg(format('%L (%s rows)', value, rows), ', ' ORDER BY value) FROM "
        f"(SELECT {identifier(column)}::text AS value, count(*) AS rows FROM {relation(table)} "
        f"WHERE NOT ({condition}) GROUP BY 1) AS others"
    )
    drop_not_valid = f"""
        IF EXISTS (SELECT FROM pg_constraint
                WHERE conrelid = {regclass(table)} AND conname = {literal(name)} AND NOT convalidated) THEN
            ALTER TABLE {relation(table)} DROP CONSTRAINT {identifier(name)};
        END IF;"""
    adding = _compared(
        table,
        declare="stray text;",
        found=facts(regclass(table)),
        create=f"ALTER TABLE {clone(table)} ADD CONSTRAINT {identifier(name)} CHECK ({condition})",
        wanted=facts(_clone_oid(table)),
        replace=f"""
    stray := ({stray});
    IF stray IS NULL THEN
        ALTER TABLE {relation(table)} DROP CONSTRAINT IF EXISTS {identifier(name)};
        {add} NOT VALID;
    ELSE {notice}{drop_not_valid}
    END IF;""",
    )
    validating = _block(
        f"""
IF EXISTS (SELECT FROM pg_constraint
        WHERE conrelid = {regclass(table)} AND conname = {literal(name)} AND NOT convalidated) THEN
    BEGIN
        ALTER TABLE {relation(table)} VALIDATE CONSTRAINT {identifier(name)};
    EXCEPTION WHEN check_violation THEN
        stray := ({stray});{notice}{drop_not_valid}
    END;
END IF;""",
        declare="stray text;",
    )
    return [adding, validating]


# For each kind: what gives the OID of a name or NULL, and its catalog with the columns that GRANT fills.
_GRANTABLE = {
    "TABLE": ("to_regclass", "pg_class", "relacl", "relowner", "r"),
    "SEQUENCE": ("to_regclass", "pg_class", "relacl", "relowner", "s"),
    "FUNCTION": ("to_regprocedure", "pg_proc", "proacl", "proowner", "f"),
    "SCHEMA": ("to_regnamespace", "pg_namespace", "nspacl", "nspowner", "n"),
}


def privileges(
    kind: str,
    names: Iterable[str],
    granted: Mapping[str, Iterable[str | tuple[str, Sequence[str]]]],
    *,
    to_nobody_else: bool,
) -> str:
    """Let the owner of objects have given each of these roles exactly these privileges, and PUBLIC none.

    Objects and roles that do not exist are passed over. In one statement, so that nobody is without a privilege
    in between.

    :param to_nobody_else: other roles have none either; else they are left alone.
    """
    granted = {"public" if role.upper() == "PUBLIC" else role: each for role, each in granted.items()}
    wanted = [
        (role, privilege, column)
        for role, privileges in granted.items()
        for entry in privileges
        for privilege, columns in [(entry, [None]) if isinstance(entry, str) else (entry[0], entry[1])]
        for column in columns
    ]
    rows = ", ".join(
        f"({literal(role)}, {literal(privilege)}, {literal(column) if column else 'NULL'})"
        for role, privilege, column in wanted
    )
    values = f"VALUES {rows}" if rows else "SELECT NULL::text, NULL::text, NULL::text WHERE false"
    roles = ", ".join(literal(role) for role in granted)
    objects = ", ".join(literal(_name_of(kind, name)) for name in names)
    to_oid, catalog, acl, owner, default = _GRANTABLE[kind]
    others = (
        f" OR oid NOT IN (SELECT c.{owner} FROM object JOIN {catalog} AS c ON c.oid = object.oid)"
        if to_nobody_else
        else ""
    )
    of_columns = (
        ""
        if kind != "TABLE"
        else """
            UNION
            SELECT object.name, role.name, acl.privilege_type, a.attname::text, acl.is_grantable
            FROM object JOIN pg_class AS c ON c.oid = object.oid
            JOIN pg_attribute AS a ON a.attrelid = object.oid AND NOT a.attisdropped
            CROSS JOIN aclexplode(a.attacl) AS acl JOIN role ON role.oid = acl.grantee
            WHERE acl.grantor = c.relowner"""
    )

    # REVOKE first: of a whole table's privilege it takes the columns' along, which are then given again. It
    # cascades, since with a grant option goes what was passed on; what others gave can be neither counted on
    # nor revoked.
    changes = f"""WITH object (oid, name) AS (
        SELECT {to_oid}(name)::oid, name FROM unnest(ARRAY[{objects}]::text[]) AS name WHERE {to_oid}(name) IS NOT NULL
    ), role (oid, name) AS (
        SELECT oid, rolname::text FROM pg_roles WHERE rolname = ANY (ARRAY[{roles}]::text[]){others}
        UNION ALL SELECT 0, 'public'
    ), wanted AS (
        SELECT object.name AS object, w.*, false AS grantable
        FROM object CROSS JOIN ({values}) AS w (grantee, privilege, attname) JOIN role ON role.name = w.grantee
    ), found (object, grantee, privilege, attname, grantable) AS (
            SELECT object.name, role.name, acl.privilege_type, NULL::text, acl.is_grantable
            FROM object JOIN {catalog} AS c ON c.oid = object.oid
            CROSS JOIN aclexplode(coalesce(c.{acl}, acldefault('{default}', c.{owner}))) AS acl
            JOIN role ON role.oid = acl.grantee
            WHERE acl.grantor = c.{owner}{of_columns}
    ), stray AS (
        SELECT * FROM found EXCEPT SELECT * FROM wanted
    ), lacking AS (
        SELECT * FROM wanted EXCEPT SELECT * FROM found AS f WHERE f.attname IS NULL OR NOT EXISTS (
            SELECT FROM stray AS s
            WHERE s.attname IS NULL AND (s.object, s.grantee, s.privilege) = (f.object, f.grantee, f.privilege))
    )
    SELECT string_agg(statement, '; ' ORDER BY verb DESC)
    FROM (
        SELECT verb, format('%s %s ON {kind} %s %s %s %s', verb,
            string_agg(privilege || coalesce(' (' || quote_ident(attname) || ')', ''), ', '), object, direction,
            CASE grantee WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(grantee) END, behaviour) AS statement
        FROM (
            SELECT 'REVOKE' AS verb, 'FROM' AS direction, 'CASCADE' AS behaviour, * FROM stray
            UNION ALL SELECT 'GRANT', 'TO', '', * FROM lacking
        ) AS change
        GROUP BY verb, direction, behaviour, object, grantee
    ) AS each
"""
    return _block(
        "IF changes IS NOT NULL THEN EXECUTE changes; END IF;", declare=f"changes text := ({changes});"
    )


def _name_of(kind: str, name: str) -> str:
    return name if kind == "FUNCTION" else relation(name)


def backfill_script(table: str, key: str, statement: str, window_rows: int, passes: int) -> str:
    """Write a backfill as one block that commits after each batch; it cannot run in a transaction."""
    return _over_windows(table, key, statement, window_rows, passes, "COMMIT;")


def refuse_unfilled(table: str, key: str, statement: str, window_rows: int, detail: str) -> str:
    """Raise an error where a backfill would still change a row; what it changed to see that is undone.

    :param detail: said besides; a HINT is not shown by the Supabase CLI.
    """
    return _over_windows(
        table,
        key,
        statement,
        window_rows,
        1,
        f"""IF FOUND THEN
            RAISE EXCEPTION {literal(f"rows of {table.replace('%', '%%')} are not filled yet")}
                USING DETAIL = {literal(detail)};
        END IF;""",
    )


def _over_windows(
    table: str, key: str, statement: str, window_rows: int, passes: int, after_each: str
) -> str:
    column = f"{relation(table)}.{identifier(key)}%TYPE"
    bounded = statement
    for name in ("first", "last", "passes", "pass"):
        bounded = bounded.replace(f":{name}", f"batch_{name}")
    return _block(
        f"""
SELECT {identifier(key)} INTO finish FROM {relation(table)} ORDER BY {identifier(key)} DESC LIMIT 1;
SELECT {identifier(key)} INTO batch_first FROM {relation(table)} ORDER BY {identifier(key)} LIMIT 1;
WHILE batch_first <= finish LOOP
    SELECT {identifier(key)} INTO batch_last
    FROM (SELECT {identifier(key)} FROM {relation(table)} WHERE {identifier(key)} >= batch_first
        ORDER BY {identifier(key)} LIMIT {window_rows}) AS batch
    ORDER BY {identifier(key)} DESC LIMIT 1;
    FOR batch_pass IN 0 .. batch_passes - 1 LOOP
        {bounded};
        {after_each}
    END LOOP;
    SELECT {identifier(key)} INTO batch_first FROM {relation(table)}
    WHERE {identifier(key)} > batch_last ORDER BY {identifier(key)} LIMIT 1;
END LOOP;""",
        declare=f"finish {column};\n    batch_first {column};\n    batch_last {column};\n"
        f"    batch_passes integer := {passes};",
    )


def beside(table: str, name: str) -> str:
    """Quote the name of an index, which is in the schema of its table."""
    schema, dot, _ = table.rpartition(".")
    return f"{identifier(schema)}.{identifier(name)}" if dot else identifier(name)


def clone(table: str) -> str:
    """Give the name of a table's temporary clone, which is its own: expressions may say it."""
    return f"pg_temp.{identifier(table.rpartition('.')[2])}"


def _clone_oid(table: str) -> str:
    return f"{literal(clone(table))}::regclass"


def _compared(table: str, *, found: str, create: str, wanted: str, replace: str, declare: str = "") -> str:
    return _block(
        f"""
IF found IS NOT NULL THEN
    CREATE TEMPORARY TABLE {clone(table)} (LIKE {relation(table)});
    {create};
    wanted := ({wanted});
    DROP TABLE {clone(table)};
END IF;
IF found IS NULL OR found IS DISTINCT FROM wanted THEN
    {replace}
END IF;""",
        declare=f"found text := ({found});\n    wanted text;\n    {declare}",
    )


def _block(body: str, *, declare: str = "") -> str:
    declared = f"DECLARE\n    {declare.strip()}\n" if declare else ""
    quote = "$step$"
    while quote in declared + body:  # it may stand in a name
        quote = quote.replace("step", "step_")
    return f"DO {quote}\n{declared}BEGIN\n{body.strip()}\nEND\n{quote}"
