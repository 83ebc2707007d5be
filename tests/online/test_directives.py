"""Each `op.` directive makes what is missing, leaves alone what is right, and mends what is not."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from tests.databases import Database
from workflow_models.online import MigrationError
from workflow_models.online.locks import LocksNotAcquiredError, Patience
from workflow_models.online.options import Options

# Gives the `op` of a revision that runs with this search_path.
OpenOp: TypeAlias = Callable[[str], Any]


@pytest.fixture
def connection(library: Database) -> Iterator[Connection]:
    with library.engine().connect() as connection:
        connection.execute(text("SET lock_timeout = '100ms'"))
        connection.commit()
        yield connection


@pytest.fixture
def open_op(connection: Connection) -> OpenOp:
    def open_op(search_path: str) -> Any:
        connection.execute(text(f"SET search_path = {search_path}"))
        connection.commit()
        impatient = Patience(Options(lock_tries=1))
        return Operations(MigrationContext.configure(connection, opts={"online_patience": impatient}))

    return open_op


@pytest.fixture
def op(open_op: OpenOp) -> Any:
    return open_op("library")


@contextmanager
def only_reading(library: Database) -> Iterator[None]:
    """Somebody holds a lock under which others may read all tables of the library, and nothing else."""
    with library.connect(autocommit=False) as other:
        for (table,) in other.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'library'"
        ).fetchall():
            other.execute(SQL("LOCK TABLE library.{} IN EXCLUSIVE MODE").format(Identifier(table)))
        yield


# Each query gives what there is on the tables of the library, and the row version that says so.
CATALOG = {
    "tables": """
        SELECT relname, concat_ws(' ', obj_description(oid, 'pg_class'), relrowsecurity),
            relfilenode::text, xmin::text
        FROM pg_class WHERE relnamespace = 'library'::regnamespace AND relkind = 'r'
    """,
    "grants": """
        SELECT DISTINCT relname, coalesce(nullif(grantee, 0)::regrole::text, 'PUBLIC') || privilege_type
            || is_grantable, '', pg_class.xmin::text
        FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'library'::regnamespace
    """,
    "columns": """
        SELECT attrelid::regclass || '.' || attname,
            concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid),
                col_description(attrelid, attnum), attacl),
            pg_attribute.xmin::text, pg_attrdef.xmin::text
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'library'::regnamespace AND attnum > 0 AND NOT attisdropped
    """,
    "indexes": """
        SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) || indisvalid || indisready,
            indexrelid::text, relfilenode::text
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = 'library'::regnamespace
    """,
    "constraints": """
        SELECT conrelid::regclass || ': ' || conname, pg_get_constraintdef(oid), oid::text, xmin::text
        FROM pg_constraint WHERE connamespace = 'library'::regnamespace AND contype <> 'n'
    """,
    "policies": """
        SELECT polrelid::regclass || ': ' || polname,
            concat_ws(' ', polcmd, polpermissive, polroles::regrole[], pg_get_expr(polqual, polrelid), '/',
                pg_get_expr(polwithcheck, polrelid)), oid::text, xmin::text
        FROM pg_policy
    """,
    "triggers": """
        SELECT tgrelid::regclass || ': ' || tgname, pg_get_triggerdef(oid) || tgenabled::text,
            oid::text, xmin::text
        FROM pg_trigger WHERE NOT tgisinternal
    """,
}


@dataclass(frozen=True)
class Catalog:
    """What there is, and in which versions of which rows the catalog says so."""

    definitions: list[tuple[str, ...]]
    versions: list[tuple[str, ...]]


def catalog(library: Database) -> Catalog:
    rows = [
        (kind, *row)
        for kind, query in CATALOG.items()
        for row in sorted(library.observer.execute(query.encode()), key=str)
    ]
    return Catalog([row[:3] for row in rows], rows)


def one(library: Database, query: str, **parameters: object) -> Any:
    [(value,)] = library.execute(query, parameters)
    return value


# What each directive is tested with; `table` and `name` differ.

Directive: TypeAlias = Callable[[Any, str, str], None]


def ensure_table(op: Any, table: str, name: str) -> None:
    op.ensure_table(
        table,
        "id integer PRIMARY KEY, title text NOT NULL, pages integer DEFAULT 1, isbn text DEFAULT '%'",
        comment=f"it's {name}, 100%",
        comments={"title": "it's on the cover, 100%"},
    )


def ensure_columns(op: Any, table: str, name: str) -> None:
    op.ensure_columns(
        table,
        "pages integer NOT NULL DEFAULT 1, tags jsonb DEFAULT '{}'::jsonb, bought timestamptz DEFAULT now()",
        comments={"tags": name},
    )


def ensure_policy(op: Any, table: str, name: str) -> None:
    op.ensure_policy(
        name, table, "UPDATE", to=["authenticated", "anon"], using="title LIKE 'A%'", check="pages > 0"
    )


def ensure_trigger(op: Any, table: str, name: str) -> None:
    op.ensure_trigger(
        name,
        table,
        "BEFORE UPDATE OF title",
        "FOR EACH ROW WHEN (NEW.title LIKE 'A%') EXECUTE FUNCTION library.touch()",
    )


def create_foreign_key_not_valid(op: Any, table: str, name: str) -> None:
    schema = "library." if table.startswith("library.") else ""
    op.create_foreign_key_not_valid(
        name, f"{schema}loans", table, ["book_id"], ["id"], onupdate="CASCADE", ondelete="SET NULL"
    )


def create_and_validate_foreign_key(op: Any, table: str, name: str) -> None:
    create_foreign_key_not_valid(op, table, name)
    op.validate_constraint(name, "library.loans" if table.startswith("library.") else "loans")


def create_check_where_rows_allow(op: Any, table: str, name: str) -> None:
    op.create_check_where_rows_allow(name, table, "pages", "pages > 0 AND title LIKE '%'")


def set_privileges(op: Any, table: str, name: str) -> None:
    del name
    op.set_privileges(
        "TABLE",
        table,
        {
            "anon": (),
            "authenticated": ("SELECT", ("UPDATE", ("title", "pages"))),
            "nobody at all": ("DELETE",),
        },
    )


def create_index_concurrently(op: Any, table: str, name: str) -> None:
    op.create_index_concurrently(
        name, table, ["pages", text("title DESC")], include=["id"], where="title LIKE 'A%'"
    )


def create_unique_index_concurrently(op: Any, table: str, name: str) -> None:
    op.create_index_concurrently(name, table, ["title"], unique=True)


DIRECTIVES: list[Directive] = [
    ensure_table,
    ensure_columns,
    ensure_policy,
    ensure_trigger,
    create_foreign_key_not_valid,
    create_and_validate_foreign_key,
    create_check_where_rows_allow,
    set_privileges,
    create_index_concurrently,
    create_unique_index_concurrently,
]
each_directive = pytest.mark.parametrize("directive", DIRECTIVES, ids=lambda directive: directive.__name__)
# search_path, table, name of what is put on it.
NAMES = [
    ("library", "books", "simple"),
    ("library", "Rare Books", "Order by"),
    ("elsewhere", "library.atlases", "other"),
]


def for_each_name(directive: Directive, open_op: OpenOp) -> None:
    for search_path, table, name in NAMES:
        directive(open_op(search_path), table, name)


@pytest.fixture
def atlases(library: Database) -> None:
    """A table that is named with its schema, in NAMES."""
    library.execute(
        """
        CREATE TABLE library.atlases (LIKE library.books INCLUDING ALL);
        INSERT INTO library.atlases TABLE library.books;
        """
    )


@pytest.mark.usefixtures("atlases")
@each_directive
def test_a_directive_leaves_alone_what_is_right_whatever_it_is_named(
    library: Database, open_op: OpenOp, directive: Directive
) -> None:
    fresh = catalog(library)
    for_each_name(directive, open_op)
    before = catalog(library)
    assert before.definitions != fresh.definitions

    with only_reading(library):
        for_each_name(directive, open_op)

    assert catalog(library) == before


@pytest.mark.usefixtures("atlases")
@each_directive
def test_a_directive_makes_as_much_on_each_table_whatever_it_is_named(
    library: Database, open_op: OpenOp, directive: Directive
) -> None:
    fresh = catalog(library)

    for_each_name(directive, open_op)

    made = set(catalog(library).definitions) - set(fresh.definitions)
    books, rare_books, atlases = (
        sum(table in str(row) for row in made) for table in ("books", "Rare Books", "atlases")
    )
    assert books == rare_books == atlases > 0


@each_directive
def test_a_directive_leaves_no_temporary_table_and_no_setting_behind(
    library: Database, op: Any, connection: Connection, directive: Directive
) -> None:
    directive(op, "books", "simple")
    directive(op, "books", "simple")

    assert connection.scalar(text("SELECT count(*) FROM pg_class WHERE relpersistence = 't'")) == 0
    assert connection.scalar(text("SELECT current_setting('lock_timeout')")) == "100ms"


DAMAGE: list[tuple[Directive, str]] = [
    (ensure_table, "COMMENT ON TABLE books IS NULL"),
    (ensure_table, "COMMENT ON COLUMN books.title IS 'another'"),
    (ensure_table, "COMMENT ON COLUMN books.pages IS 'one of which none is declared'"),
    (ensure_table, "ALTER TABLE books ALTER title DROP NOT NULL"),
    (ensure_table, "ALTER TABLE books ALTER pages SET DEFAULT 2"),
    (ensure_table, "ALTER TABLE books ALTER pages DROP DEFAULT"),
    (ensure_table, "ALTER TABLE books ALTER title SET DEFAULT ''"),
    (ensure_table, "ALTER TABLE books DROP isbn"),
    (ensure_columns, "ALTER TABLE books ALTER pages DROP NOT NULL, ALTER tags SET DEFAULT '[]'"),
    (ensure_columns, "ALTER TABLE books DROP tags, DROP pages"),
    (ensure_policy, "ALTER POLICY simple ON books USING (true)"),
    (ensure_policy, "ALTER POLICY simple ON books WITH CHECK (true)"),
    (ensure_policy, "ALTER POLICY simple ON books TO authenticated"),
    (ensure_policy, "ALTER POLICY simple ON books TO PUBLIC"),
    (
        ensure_policy,
        """
        DROP POLICY simple ON books;
        CREATE POLICY simple ON books AS RESTRICTIVE FOR UPDATE TO anon, authenticated
            USING (title LIKE 'A%') WITH CHECK (pages > 0)
        """,
    ),
    (
        ensure_policy,
        """
        DROP POLICY simple ON books;
        CREATE POLICY simple ON books TO anon, authenticated USING (title LIKE 'A%') WITH CHECK (pages > 0)
        """,
    ),
    (ensure_trigger, "ALTER TABLE books DISABLE TRIGGER simple"),
    (ensure_trigger, "ALTER TABLE books ENABLE ALWAYS TRIGGER simple"),
    (
        ensure_trigger,
        """
        DROP TRIGGER simple ON books;
        CREATE TRIGGER simple AFTER UPDATE OF title ON books FOR EACH ROW
            WHEN (NEW.title LIKE 'A%') EXECUTE FUNCTION touch()
        """,
    ),
    (
        ensure_trigger,
        """
        DROP TRIGGER simple ON books;
        CREATE TRIGGER simple BEFORE UPDATE OF title ON books FOR EACH ROW EXECUTE FUNCTION touch()
        """,
    ),
    (
        create_foreign_key_not_valid,
        """
        ALTER TABLE loans DROP CONSTRAINT simple,
            ADD CONSTRAINT simple FOREIGN KEY (book_id) REFERENCES books ON UPDATE CASCADE NOT VALID
        """,
    ),
    (
        create_foreign_key_not_valid,
        """
        ALTER TABLE loans DROP CONSTRAINT simple, ADD CONSTRAINT simple FOREIGN KEY (id) REFERENCES books
            ON UPDATE CASCADE ON DELETE SET NULL NOT VALID
        """,
    ),
    (
        create_foreign_key_not_valid,
        """
        ALTER TABLE loans DROP CONSTRAINT simple, ADD CONSTRAINT simple FOREIGN KEY (book_id)
            REFERENCES "Rare Books" ON UPDATE CASCADE ON DELETE SET NULL NOT VALID
        """,
    ),
    (
        create_foreign_key_not_valid,
        """
        ALTER TABLE loans DROP CONSTRAINT simple, ADD CONSTRAINT simple FOREIGN KEY (book_id)
            REFERENCES books ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE NOT VALID
        """,
    ),
    (
        create_foreign_key_not_valid,
        "ALTER TABLE loans DROP CONSTRAINT simple, ADD CONSTRAINT simple CHECK (id > 0)",
    ),
    (
        create_and_validate_foreign_key,
        """
        ALTER TABLE loans DROP CONSTRAINT simple, ADD CONSTRAINT simple FOREIGN KEY (book_id)
            REFERENCES books ON UPDATE CASCADE ON DELETE SET NULL NOT VALID
        """,
    ),
    (
        create_check_where_rows_allow,
        """
        ALTER TABLE books DROP CONSTRAINT simple,
            ADD CONSTRAINT simple CHECK (pages > 0 AND title LIKE '%') NOT VALID
        """,
    ),
    (
        create_check_where_rows_allow,
        "ALTER TABLE books DROP CONSTRAINT simple, ADD CONSTRAINT simple CHECK (pages > 1)",
    ),
    (set_privileges, "GRANT INSERT ON books TO authenticated, anon, PUBLIC"),
    (set_privileges, "GRANT UPDATE ON books TO authenticated"),
    (set_privileges, "GRANT UPDATE (id) ON books TO authenticated, PUBLIC"),
    (set_privileges, "GRANT SELECT ON books TO authenticated WITH GRANT OPTION"),
    (set_privileges, "GRANT UPDATE (title) ON books TO authenticated WITH GRANT OPTION"),
    (set_privileges, "REVOKE SELECT ON books FROM authenticated"),
    (set_privileges, "REVOKE UPDATE (pages) ON books FROM authenticated"),
    *(
        (create_index_concurrently, f"DROP INDEX simple; CREATE {definition}")
        for definition in (
            "INDEX simple ON books (pages, title DESC) INCLUDE (id)",
            "INDEX simple ON books (pages, title) INCLUDE (id) WHERE title LIKE 'A%'",
            "INDEX simple ON books (pages, title DESC) WHERE title LIKE 'A%'",
            "UNIQUE INDEX simple ON books (pages, title DESC) INCLUDE (id) WHERE title LIKE 'A%'",
        )
    ),
    (create_unique_index_concurrently, "DROP INDEX simple; CREATE INDEX simple ON books (title)"),
    (
        create_unique_index_concurrently,
        "DROP INDEX simple; ALTER TABLE books ADD CONSTRAINT simple UNIQUE (title, pages)",
    ),
    (
        create_unique_index_concurrently,
        "DROP INDEX simple; ALTER TABLE books ADD CONSTRAINT simple UNIQUE (title) DEFERRABLE",
    ),
]


# The directives that something damages.
@pytest.mark.parametrize("directive", dict(DAMAGE), ids=lambda directive: directive.__name__)
def test_a_directive_mends_what_is_not_right(library: Database, op: Any, directive: Directive) -> None:
    directive(op, "books", "simple")
    right = catalog(library).definitions

    for damage in (damage for damaged, damage in DAMAGE if damaged is directive):
        library.execute(f"SET search_path = library; {damage}")
        assert catalog(library).definitions != right

        directive(op, "books", "simple")

        assert catalog(library).definitions == right, damage


def test_an_invalid_index_is_built_again(library: Database, op: Any) -> None:
    create_index_concurrently(op, "books", "simple")
    before = catalog(library)
    library.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'library.simple'::regclass",
        user=library.superuser,
    )

    create_index_concurrently(op, "books", "simple")

    assert catalog(library).definitions == before.definitions
    assert catalog(library).versions != before.versions


def test_a_directive_waits_for_its_lock_in_short_tries_only(library: Database, op: Any) -> None:
    with only_reading(library), pytest.raises(LocksNotAcquiredError):
        ensure_policy(op, "books", "simple")


# What they make.


def test_a_new_table_has_what_is_declared(library: Database, open_op: OpenOp) -> None:
    ensure_table(open_op("elsewhere"), "Shelves", "new")

    assert library.execute(
        """
        SELECT attname, format_type(atttypid, NULL), attnotnull, pg_get_expr(adbin, adrelid),
            col_description(attrelid, attnum)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = 'elsewhere."Shelves"'::regclass AND attnum > 0 ORDER BY attnum
        """
    ) == [
        ("id", "integer", True, None, None),
        ("title", "text", True, None, "it's on the cover, 100%"),
        ("pages", "integer", False, "1", None),
        ("isbn", "text", False, "'%'::text", None),
    ]
    assert library.execute(
        """
        SELECT obj_description('elsewhere."Shelves"'::regclass), pg_get_constraintdef(oid)
        FROM pg_constraint WHERE conrelid = 'elsewhere."Shelves"'::regclass AND contype <> 'n'
        """
    ) == [("it's new, 100%", "PRIMARY KEY (id)")]


def test_a_new_table_can_be_made_in_another_schema(library: Database, op: Any) -> None:
    ensure_table(op, "elsewhere.shelves", "new")

    assert one(library, "SELECT obj_description('elsewhere.shelves'::regclass)") == "it's new, 100%"


def test_a_column_of_another_type_is_an_error_that_names_it(library: Database, op: Any) -> None:
    library.execute("ALTER TABLE library.books ALTER title TYPE varchar(20)")

    with pytest.raises(
        DBAPIError, match=r"column (library\.)?books\.title has type character varying\(20\), not text"
    ):
        ensure_table(op, "books", "simple")


@pytest.mark.parametrize(
    "declare",
    [
        lambda op, columns: op.ensure_table("shelves", columns, comment="", comments={}),
        lambda op, columns: op.ensure_columns("loans", columns, comments={}),
    ],
    ids=["ensure_table", "ensure_columns"],
)
def test_a_key_in_a_column_list_is_refused(
    library: Database, op: Any, declare: Callable[[Any, str], None]
) -> None:
    before = catalog(library)

    with pytest.raises(MigrationError, match=r"declare the key with op\.create_foreign_key_not_valid"):
        declare(op, "book_id integer references books (id)")

    assert catalog(library) == before


def test_a_column_may_be_named_like_a_key(library: Database, op: Any) -> None:
    op.ensure_columns("loans", """ "references" text DEFAULT 'references' """, comments={})

    assert one(library, 'SELECT DISTINCT "references" FROM library.loans') == "references"


def test_columns_that_are_not_declared_stay(library: Database, op: Any) -> None:
    library.execute(
        "ALTER TABLE library.books ADD COLUMN isbn_of_theirs text NOT NULL DEFAULT 'x';"
        "COMMENT ON COLUMN library.books.isbn_of_theirs IS 'theirs'"
    )
    before = [row for row in catalog(library).versions if "isbn_of_theirs" in row[1]]

    ensure_table(op, "books", "simple")

    assert [row for row in catalog(library).versions if "isbn_of_theirs" in row[1]] == before


def test_rows_get_the_default_of_a_column_that_is_added(library: Database, op: Any) -> None:
    ensure_columns(op, "books", "simple")

    assert library.execute("SELECT DISTINCT tags, bought IS NULL FROM library.books") == [({}, False)]


def test_a_policy_says_what_was_asked(library: Database, op: Any) -> None:
    ensure_policy(op, "books", "simple")

    assert library.execute(
        "SELECT permissive, roles::text[], cmd, qual, with_check FROM pg_policies WHERE tablename = 'books'"
    ) == [
        (
            "PERMISSIVE",
            ["anon", "authenticated"],
            "UPDATE",
            "(title ~~ 'A%'::text)",
            "(pages > 0)",
        )
    ]


ODD_NAMES = [
    'it\'s "theirs"',
    "100% of readers",
    "%s %(name)s %%",
    "Readers, e.g. Ann",
    "a:b",
    "$1 $$",
    "$step$ $step_$",
]


def policies(library: Database) -> list[tuple[str, str]]:
    found = library.execute("SELECT policyname, cmd FROM pg_policies WHERE tablename = 'books'")
    return sorted((name, command) for name, command in found)


def test_a_policy_has_exactly_the_name_that_was_given(library: Database, op: Any) -> None:
    for name in ODD_NAMES:
        ensure_policy(op, "books", name)

    assert policies(library) == sorted((name, "UPDATE") for name in ODD_NAMES)


def test_a_policy_of_an_odd_name_is_left_alone_when_right(library: Database, op: Any) -> None:
    for name in ODD_NAMES:
        ensure_policy(op, "books", name)
    before = catalog(library)

    with only_reading(library):
        for name in ODD_NAMES:
            ensure_policy(op, "books", name)

    assert catalog(library) == before


def test_a_policy_of_an_odd_name_is_replaced_when_not(library: Database, op: Any) -> None:
    for name in ODD_NAMES:
        op.ensure_policy(name, "books", "SELECT", to="anon", using="true")
        ensure_policy(op, "books", name)

    assert policies(library) == sorted((name, "UPDATE") for name in ODD_NAMES)


def test_a_policy_is_never_gone_while_it_is_replaced(library: Database, op: Any) -> None:
    op.ensure_policy("simple", "books", "SELECT", to="anon", using="true")

    with pytest.raises(DBAPIError):
        op.ensure_policy("simple", "books", "SELECT", to="nobody at all", using="true")

    assert one(library, "SELECT roles::text[] FROM pg_policies WHERE tablename = 'books'") == ["anon"]


def test_a_policy_for_everybody_is_one_to_public(library: Database, op: Any) -> None:
    op.ensure_policy("simple", "books", "SELECT", to="PUBLIC", using="true")

    assert one(library, "SELECT roles::text[] FROM pg_policies WHERE tablename = 'books'") == ["public"]


def test_a_trigger_does_what_was_asked(library: Database, op: Any) -> None:
    ensure_trigger(op, "books", "simple")

    assert one(library, "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'simple'") == (
        "CREATE TRIGGER simple BEFORE UPDATE OF title ON library.books FOR EACH ROW "
        "WHEN ((new.title ~~ 'A%'::text)) EXECUTE FUNCTION library.touch()"
    )


def test_a_trigger_of_that_name_on_another_table_stays(library: Database, op: Any) -> None:
    library.execute(
        "CREATE TRIGGER simple AFTER INSERT ON library.loans FOR EACH ROW EXECUTE FUNCTION library.touch()"
    )

    ensure_trigger(op, "books", "simple")

    assert library.execute(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'simple' ORDER BY 1"
    ) == [
        ("library.books",),
        ("library.loans",),
    ]


FOREIGN_KEY = "FOREIGN KEY (book_id) REFERENCES library.books(id) ON UPDATE CASCADE ON DELETE SET NULL"


def constraint(library: Database, name: str = "simple") -> str | None:
    found = library.execute(f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{name}'")
    return found[0][0] if found else None


def test_a_foreign_key_is_added_not_valid_and_then_validated(library: Database, op: Any) -> None:
    create_foreign_key_not_valid(op, "books", "simple")
    assert constraint(library) == f"{FOREIGN_KEY} NOT VALID"

    op.validate_constraint("simple", "loans")

    assert constraint(library) == FOREIGN_KEY


def test_a_foreign_key_that_was_validated_stays_valid(library: Database, op: Any) -> None:
    create_and_validate_foreign_key(op, "books", "simple")

    create_foreign_key_not_valid(op, "books", "simple")

    assert constraint(library) == FOREIGN_KEY


@pytest.mark.parametrize("definition", [FOREIGN_KEY, FOREIGN_KEY.partition(" ON ")[0]])
def test_a_foreign_key_that_is_called_otherwise_is_taken_over(
    library: Database, op: Any, definition: str
) -> None:
    library.execute(f"""ALTER TABLE library.loans ADD CONSTRAINT "their's" {definition}""")

    create_and_validate_foreign_key(op, "books", "simple")

    assert constraint(library) == FOREIGN_KEY
    assert constraint(library, "their''s") is None


def test_a_foreign_key_is_validated_while_others_write(library: Database, op: Any) -> None:
    create_foreign_key_not_valid(op, "books", "simple")

    with library.connect(autocommit=False) as writer:
        writer.execute("UPDATE library.loans SET reader = 'ann'")
        writer.execute("UPDATE library.books SET title = 'Ulysses' WHERE id = 1")
        op.validate_constraint("simple", "loans")

    assert constraint(library) == FOREIGN_KEY


def test_validation_that_finds_a_wrong_row_fails(library: Database, op: Any) -> None:
    library.execute("UPDATE library.loans SET book_id = 4711 WHERE id = 1")
    create_foreign_key_not_valid(op, "books", "simple")

    with pytest.raises(DBAPIError, match="4711"):
        op.validate_constraint("simple", "loans")

    assert constraint(library) == f"{FOREIGN_KEY} NOT VALID"


def test_a_constraint_that_is_not_there_is_not_validated(library: Database, op: Any) -> None:
    op.validate_constraint("simple", "loans")

    assert constraint(library) is None


def optional_foreign_key(op: Any, referent: str) -> None:
    op.create_foreign_key_not_valid("simple", "loans", referent, ["book_id"], ["id"], if_referent_exists=True)


@pytest.mark.parametrize("referent", ["nowhere.books", "elsewhere.books", "nothing"])
def test_a_foreign_key_to_a_table_that_may_be_missing_is_left_out_where_it_is(
    library: Database, op: Any, referent: str
) -> None:
    optional_foreign_key(op, referent)

    assert constraint(library) is None


def test_a_foreign_key_to_a_table_that_may_be_missing_is_added_where_it_is_not(
    library: Database, op: Any
) -> None:
    optional_foreign_key(op, "library.Rare Books")

    assert constraint(library) == 'FOREIGN KEY (book_id) REFERENCES library."Rare Books"(id) NOT VALID'


@pytest.mark.parametrize(
    ("local", "remote"), [(["bok_id"], ["id"]), (["book_id", "reader"], ["id"])], ids=["column", "number"]
)
def test_a_mistake_at_the_near_end_of_a_foreign_key_is_not_taken_for_one_of_others(
    library: Database, op: Any, local: list[str], remote: list[str]
) -> None:
    with pytest.raises(ProgrammingError):
        op.create_foreign_key_not_valid(
            "simple", "loans", "library.books", local, remote, if_referent_exists=True
        )

    assert constraint(library) is None


def test_a_foreign_key_to_a_table_of_others_is_not_added_beside_another_one(
    library: Database, op: Any
) -> None:
    library.execute(
        "ALTER TABLE library.loans ADD CONSTRAINT own FOREIGN KEY (book_id) "
        "REFERENCES library.books ON DELETE SET NULL"
    )

    optional_foreign_key(op, "library.books")

    assert constraint(library) is None


def test_a_check_is_added_valid(library: Database, op: Any) -> None:
    create_check_where_rows_allow(op, "books", "simple")

    assert constraint(library) == "CHECK (((pages > 0) AND (title ~~ '%'::text)))"


NO_PAGES = (
    "UPDATE library.books SET pages = 0 WHERE id <= 3; UPDATE library.books SET pages = -1 WHERE id = 4"
)


def notices(connection: Connection) -> list[str]:
    """What the server tells this connection from now on."""
    told: list[str] = []
    driver_connection: Any = connection.connection.driver_connection
    driver_connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
    return told


ADD_CHECK = "ALTER TABLE library.books ADD CONSTRAINT simple CHECK (pages > 0 AND title LIKE '%') NOT VALID"


@pytest.mark.parametrize("before", ["", ADD_CHECK], ids=["missing", "there, not valid"])
def test_a_check_that_rows_do_not_satisfy_is_left_out_and_they_are_counted(
    library: Database, op: Any, connection: Connection, before: str
) -> None:
    library.execute(f"{NO_PAGES}; {before}")
    told = notices(connection)

    create_check_where_rows_allow(op, "books", "simple")

    assert told == [
        (
            "simple was not added, since books.pages has other values: '-1' (1 rows), '0' (3 rows). Once "
            "they are mended, run: ALTER TABLE books ADD CONSTRAINT simple "
            "CHECK (pages > 0 AND title LIKE '%') "
            "NOT VALID; ALTER TABLE books VALIDATE CONSTRAINT simple;"
        )
    ]
    assert constraint(library) is None


def test_only_the_asked_privileges_are_there_afterwards(library: Database, op: Any) -> None:
    library.execute(
        "GRANT ALL ON library.books TO anon, authenticated WITH GRANT OPTION;"
        "GRANT ALL ON library.books TO PUBLIC"
    )

    set_privileges(op, "books", "")

    assert library.execute(
        """
        SELECT grantee, privilege_type, string_agg(column_name, ' ' ORDER BY column_name)
        FROM information_schema.column_privileges
        WHERE table_name = 'books' AND grantee IN ('anon', 'authenticated', 'PUBLIC')
        GROUP BY 1, 2 ORDER BY 1, 2
        """
    ) == [("authenticated", "SELECT", "id pages title"), ("authenticated", "UPDATE", "pages title")]


def test_privileges_of_roles_that_are_not_named_stay(library: Database, op: Any) -> None:
    library.execute("GRANT SELECT, DELETE ON library.books TO service_role WITH GRANT OPTION")

    set_privileges(op, "books", "")

    assert library.execute(
        """
        SELECT privilege_type, is_grantable FROM information_schema.role_table_grants
        WHERE table_name = 'books' AND grantee = 'service_role' ORDER BY 1
        """
    ) == [("DELETE", "YES"), ("SELECT", "YES")]


def test_what_a_role_has_passed_on_goes_with_its_grant_option(library: Database, op: Any) -> None:
    library.execute(
        "GRANT USAGE ON SCHEMA library TO authenticated;"
        "GRANT SELECT, INSERT ON library.books TO authenticated WITH GRANT OPTION;"
        "GRANT SELECT ON library.books TO service_role;"
        "SET ROLE authenticated;"
        "GRANT SELECT, INSERT ON library.books TO anon, service_role",
        user=library.superuser,
    )

    set_privileges(op, "books", "")

    assert library.execute(
        """
        SELECT grantee::regrole::text, privilege_type, is_grantable
        FROM pg_class CROSS JOIN aclexplode(relacl)
        WHERE relname = 'books' AND grantee <> relowner ORDER BY 1
        """
    ) == [("authenticated", "SELECT", False), ("service_role", "SELECT", False)]


PRIVILEGES = """
    SELECT coalesce(nullif(grantee, 0)::regrole::text, 'PUBLIC'), privilege_type, is_grantable,
        grantor = relowner
    FROM pg_class CROSS JOIN aclexplode(relacl) WHERE relname = 'books' AND grantee <> relowner ORDER BY 1, 4
"""


def test_a_role_keeps_what_another_that_is_named_had_passed_on_to_it(library: Database, op: Any) -> None:
    library.execute(
        "GRANT USAGE ON SCHEMA library TO service_role, authenticated;"
        "GRANT SELECT ON library.books TO service_role WITH GRANT OPTION; SET ROLE service_role;"
        "GRANT SELECT ON library.books TO authenticated WITH GRANT OPTION; SET ROLE authenticated;"
        "GRANT SELECT ON library.books TO anon",
        user=library.superuser,
    )

    op.set_privileges("TABLE", "books", dict.fromkeys(("service_role", "authenticated", "anon"), ("SELECT",)))

    assert library.execute(PRIVILEGES) == [
        ("anon", "SELECT", False, True),
        ("authenticated", "SELECT", False, True),
        ("service_role", "SELECT", False, True),
    ]


def test_what_a_role_that_is_not_named_has_passed_on_stays(library: Database, op: Any) -> None:
    library.execute(
        "GRANT USAGE ON SCHEMA library TO service_role;"
        "GRANT SELECT ON library.books TO authenticated;"
        "GRANT SELECT ON library.books TO service_role WITH GRANT OPTION; SET ROLE service_role;"
        "GRANT SELECT ON library.books TO authenticated, anon WITH GRANT OPTION;"
        "GRANT SELECT ON library.books TO PUBLIC",
        user=library.superuser,
    )

    for _ in range(2):
        op.set_privileges("TABLE", "books", {"authenticated": ("SELECT",), "anon": ()})

        assert library.execute(PRIVILEGES) == [
            ("PUBLIC", "SELECT", False, False),
            ("anon", "SELECT", True, False),
            ("authenticated", "SELECT", True, False),
            ("authenticated", "SELECT", False, True),
            ("service_role", "SELECT", True, True),
        ]


def test_everybody_may_be_named_and_nobody(library: Database, op: Any) -> None:
    op.set_privileges("TABLE", "books", {"PUBLIC": ("SELECT",)})
    assert library.execute(PRIVILEGES) == [("PUBLIC", "SELECT", False, True)]

    op.set_privileges("TABLE", "books", {})
    assert library.execute(PRIVILEGES) == []


@pytest.mark.parametrize(
    ("kind", "name", "granted"),
    [
        ("SEQUENCE", "loan_numbers", {"anon": (), "authenticated": ("USAGE",)}),
        ("SEQUENCE", "library.loan_numbers", {"anon": (), "authenticated": ("USAGE",)}),
        ("FUNCTION", "library.touch()", {"anon": (), "authenticated": ("EXECUTE",)}),
        ("SCHEMA", "library", {"anon": (), "authenticated": ("USAGE",)}),
    ],
)
def test_privileges_of_other_objects_than_tables_are_set_too(
    library: Database, op: Any, kind: str, name: str, granted: dict[str, Any]
) -> None:
    library.execute("CREATE SEQUENCE library.loan_numbers")
    library.execute(f"SET search_path = library; GRANT ALL ON {kind} {name} TO anon, PUBLIC")

    op.set_privileges(kind, name, granted)

    acl = {
        "SEQUENCE": "SELECT relacl FROM pg_class WHERE relname = 'loan_numbers'",
        "FUNCTION": "SELECT proacl FROM pg_proc WHERE proname = 'touch'",
        "SCHEMA": "SELECT nspacl FROM pg_namespace WHERE nspname = 'library'",
    }[kind]
    assert library.execute(
        f"SELECT grantee::regrole::text, privilege_type FROM aclexplode(({acl})) WHERE grantee <> grantor"
    ) == [("authenticated", granted["authenticated"][0])]


def test_privileges_that_others_have_go_where_nobody_else_is_to_have_any(library: Database, op: Any) -> None:
    library.execute(
        "GRANT ALL ON library.books TO anon; GRANT UPDATE (title) ON library.books TO service_role"
    )

    op.set_privileges("TABLE", "books", {"authenticated": ("SELECT",)}, to_nobody_else=True)

    assert library.execute(PRIVILEGES) == [("authenticated", "SELECT", False, True)]
    assert library.execute("SELECT has_table_privilege('library.books', 'SELECT, INSERT, UPDATE')") == [
        (True,)
    ]
    columns = "SELECT count(attacl) FROM pg_attribute WHERE attrelid = 'library.books'::regclass"
    assert library.execute(columns) == [(0,)]


def test_a_new_table_is_open_to_nobody(library: Database, op: Any) -> None:
    library.execute(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon;"
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon"
    )

    op.ensure_table("readers", "id bigserial PRIMARY KEY", comments={}, comment="Who reads")

    granted = """
        SELECT relname::text, grantee::regrole::text FROM pg_class CROSS JOIN aclexplode(relacl)
        WHERE relnamespace = 'library'::regnamespace AND relname LIKE 'readers%' AND grantee <> relowner
    """
    assert library.execute(granted) == []


def test_privileges_are_set_on_several_objects_at_once(library: Database, op: Any) -> None:
    library.execute("GRANT ALL ON library.books, library.loans TO anon, PUBLIC")

    op.set_privileges("TABLE", ["books", "nothing", "Rare Books"], {"anon": (), "authenticated": ("SELECT",)})

    assert library.execute(
        """
        SELECT relname, grantee::regrole::text, string_agg(privilege_type, ' ' ORDER BY privilege_type)
        FROM pg_class CROSS JOIN aclexplode(relacl)
        WHERE relname IN ('books', 'Rare Books') AND grantee <> grantor GROUP BY 1, 2 ORDER BY 1
        """
    ) == [("Rare Books", "authenticated", "SELECT"), ("books", "authenticated", "SELECT")]
    assert library.execute("SELECT has_table_privilege('anon', 'library.loans', 'UPDATE')") == [(True,)]


def test_privileges_on_what_is_not_there_are_passed_over(library: Database, op: Any) -> None:
    before = catalog(library)

    op.set_privileges("TABLE", "nothing", {"anon": ("SELECT",)})
    op.set_privileges("FUNCTION", "library.nothing()", {"anon": ("EXECUTE",)})

    assert catalog(library) == before


def index(library: Database) -> str | None:
    found = library.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'simple'")
    return found[0][0] if found else None


def test_an_index_is_what_was_asked(library: Database, op: Any) -> None:
    create_index_concurrently(op, "books", "simple")

    assert index(library) == (
        "CREATE INDEX simple ON library.books USING btree (pages, title DESC) INCLUDE (id) "
        "WHERE (title ~~ 'A%'::text)"
    )


def test_an_index_is_built_while_others_write(library: Database, op: Any, connection: Connection) -> None:
    # Writers hold ROW EXCLUSIVE; one that has written nothing yet keeps no build waiting.
    with library.connect(autocommit=False) as writer:
        writer.execute("LOCK TABLE library.loans IN ROW EXCLUSIVE MODE")
        create_index_concurrently(op, "books", "simple")

    assert index(library) is not None


def test_an_index_of_that_name_on_another_table_is_an_error_that_names_it(library: Database, op: Any) -> None:
    library.execute("CREATE INDEX simple ON library.loans (book_id)")

    with pytest.raises(MigrationError) as refused:
        create_index_concurrently(op, "books", "simple")

    assert str(refused.value) == (
        "error: the index simple cannot be built.\n"
        "  Happened: an index of that name stands on loans.\n"
        "  Unchanged: what is there.\n"
        "  Next: rename it, then run the same command again."
    )
    assert index(library) == "CREATE INDEX simple ON library.loans USING btree (book_id)"


def test_a_table_of_that_name_is_an_error_too(library: Database, op: Any) -> None:
    library.execute("CREATE TABLE library.simple (id integer)")

    with pytest.raises(MigrationError, match="a relation of that name is there, and is no index"):
        create_index_concurrently(op, "books", "simple")


def test_an_index_that_a_foreign_key_needs_is_not_replaced(library: Database, op: Any) -> None:
    library.execute(
        """
        CREATE UNIQUE INDEX simple ON library.books (id, title);
        CREATE TABLE library.copies (id bigint, title text, CONSTRAINT of_book FOREIGN KEY (id, title)
            REFERENCES library.books (id, title))
        """
    )

    with pytest.raises(MigrationError, match="a foreign key needs it: of_book of copies"):
        create_unique_index_concurrently(op, "books", "simple")

    assert index(library) == "CREATE UNIQUE INDEX simple ON library.books USING btree (id, title)"


def test_an_index_that_tells_rows_apart_for_publications_is_not_replaced(library: Database, op: Any) -> None:
    library.execute(
        """
        CREATE UNIQUE INDEX simple ON library.books (id, title);
        ALTER TABLE library.books REPLICA IDENTITY USING INDEX simple
        """
    )

    with pytest.raises(MigrationError, match=r"it is the replica identity of library\.books"):
        create_index_concurrently(op, "books", "simple")

    assert index(library) == "CREATE UNIQUE INDEX simple ON library.books USING btree (id, title)"


OTHERS = {
    "an index of another table": "CREATE INDEX simple_ccold ON library.loans (book_id)",
    "a table": "CREATE TABLE library.simple_ccold (id integer)",
}


@pytest.mark.parametrize("statement", OTHERS.values(), ids=OTHERS)
def test_what_has_the_name_of_an_index_aside_stays(library: Database, op: Any, statement: str) -> None:
    library.execute(statement)
    library.execute("CREATE INDEX simple ON library.books (pages)")

    create_index_concurrently(op, "books", "simple")
    op.drop_index_concurrently("simple")

    assert library.execute("SELECT to_regclass('library.simple_ccold') IS NOT NULL") == [(True,)]
    assert index(library) is None


@pytest.mark.parametrize("name", ["ü" * 31, "i" * 63, "simple"])
def test_an_index_that_is_replaced_leaves_nothing_behind(library: Database, op: Any, name: str) -> None:
    library.execute(f'CREATE INDEX "{name}" ON library.books (pages)')
    before = library.execute("SELECT count(*) FROM pg_class")

    create_index_concurrently(op, "books", name)
    create_index_concurrently(op, "books", name)

    assert library.execute("SELECT count(*) FROM pg_class") == before
    [(definition,)] = library.execute(f"SELECT pg_get_indexdef('library.\"{name}\"'::regclass)")
    assert "WHERE (title ~~ 'A%'::text)" in definition


def test_an_index_that_is_replaced_hands_over_what_was_said_of_it(library: Database, op: Any) -> None:
    library.execute(
        "CREATE INDEX simple ON library.books (pages); COMMENT ON INDEX library.simple IS '50% of \"it\"';"
        "ALTER TABLE library.books CLUSTER ON simple"
    )

    op.create_index_concurrently("simple", "books", ["title"])

    assert library.execute(
        "SELECT indisclustered, obj_description(indexrelid) FROM pg_index "
        "WHERE indexrelid = 'library.simple'::regclass"
    ) == [(True, '50% of "it"')]


def test_what_a_killed_run_has_left_aside_goes_with_the_next_one(library: Database, op: Any) -> None:
    create_index_concurrently(op, "books", "simple")
    library.execute("CREATE INDEX simple_ccold ON library.books (pages)")

    create_index_concurrently(op, "books", "simple")

    assert library.execute("SELECT to_regclass('library.simple_ccold')") == [(None,)]


def test_an_index_of_that_name_in_another_schema_stays(library: Database, open_op: OpenOp) -> None:
    library.execute(
        "CREATE TABLE elsewhere.books (title text); CREATE INDEX simple ON elsewhere.books (title);"
        "CREATE INDEX simple ON library.books (title)"
    )

    create_index_concurrently(open_op("elsewhere"), "library.books", "simple")

    assert library.execute(
        "SELECT schemaname, indexdef FROM pg_indexes WHERE indexname = 'simple' ORDER BY 1"
    ) == [
        ("elsewhere", "CREATE INDEX simple ON elsewhere.books USING btree (title)"),
        (
            "library",
            (
                "CREATE INDEX simple ON library.books USING btree (pages, title DESC) INCLUDE (id) "
                "WHERE (title ~~ 'A%'::text)"
            ),
        ),
    ]


def test_a_unique_index_over_rows_that_are_not_leaves_no_valid_index(library: Database, op: Any) -> None:
    library.execute("UPDATE library.books SET title = 'Ulysses'")
    with pytest.raises(DBAPIError, match="could not create unique index"):
        create_unique_index_concurrently(op, "books", "simple")
    library.execute("UPDATE library.books SET title = id")

    create_unique_index_concurrently(op, "books", "simple")

    assert (
        one(library, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'library.simple'::regclass") is True
    )


@pytest.mark.parametrize("times", [1, 2])
def test_an_index_is_dropped_where_it_is(library: Database, op: Any, times: int) -> None:
    library.execute('CREATE INDEX "Order by" ON library.books (title)')

    for _ in range(times):
        op.drop_index_concurrently("Order by")

    assert library.execute("SELECT 1 FROM pg_class WHERE relname = 'Order by'") == []


# Plain statements.


def test_a_step_is_committed_before_the_next_one_starts(library: Database, op: Any) -> None:
    op.execute_step("CREATE TABLE shelves ()")
    with pytest.raises(DBAPIError):
        op.execute_step("SELECT 1 / 0")

    assert one(library, "SELECT to_regclass('library.shelves') IS NOT NULL") is True


def test_a_step_may_hold_percent_signs_and_colons(library: Database, op: Any) -> None:
    op.execute_step("UPDATE books SET title = '100% :of %s %(it)s' WHERE id = 1")

    assert one(library, "SELECT title FROM library.books WHERE id = 1") == "100% :of %s %(it)s"


@pytest.mark.parametrize(("condition", "run"), [("SELECT WHERE false", True), ("SELECT", False)])
def test_a_statement_runs_unless_the_condition_gives_a_row(
    library: Database, op: Any, condition: str, run: bool
) -> None:
    op.execute_unless(condition, "CREATE TABLE shelves ()")

    assert one(library, "SELECT to_regclass('library.shelves') IS NOT NULL") is run


# Backfills. The first window has 2,000 rows.

FILL = "UPDATE loans SET due = '2030-01-01' WHERE id BETWEEN :first AND :last AND due IS NULL"
LOANS = (
    "TRUNCATE library.loans; INSERT INTO library.loans SELECT n * 7 - 5000, n FROM generate_series(1, 5000) n"
)


def unfilled(library: Database) -> int:
    return int(one(library, "SELECT count(*) FROM library.loans WHERE due IS NULL"))


def test_a_backfill_goes_over_every_row_whatever_gaps_the_key_has(library: Database, op: Any) -> None:
    library.execute(f"{LOANS}; INSERT INTO library.loans VALUES (2000000000, 1), (-2000000000, 1)")

    op.backfill("loans", "id", FILL)

    assert unfilled(library) == 0


def test_a_backfill_of_an_empty_table_does_nothing(library: Database, op: Any) -> None:
    library.execute("TRUNCATE library.loans")

    op.backfill("loans", "id", FILL)

    assert unfilled(library) == 0


def test_a_backfill_takes_any_key_that_has_an_order(library: Database, op: Any) -> None:
    library.execute(
        """
        CREATE TABLE library.readers ("Key" uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text);
        INSERT INTO library.readers SELECT FROM generate_series(1, 5000)
        """
    )

    op.backfill("readers", "Key", """UPDATE readers SET name = 'x' WHERE "Key" BETWEEN :first AND :last""")

    assert one(library, "SELECT count(*) FROM library.readers WHERE name IS NULL") == 0


@pytest.mark.usefixtures("atlases")
def test_a_backfill_takes_any_table_whatever_it_is_named(library: Database, open_op: OpenOp) -> None:
    for search_path, table, _ in NAMES:
        quoted = table if "." in table else f'"{table}"'
        open_op(search_path).backfill(
            table, "id", f"UPDATE {quoted} SET pages = 1 WHERE id BETWEEN :first AND :last AND title LIKE '%'"
        )

    for table in ("books", "Rare Books", "atlases"):
        assert library.execute(f'SELECT DISTINCT pages FROM library."{table}"') == [(1,)]


@pytest.mark.parametrize("gone", ["id > :last", "id > :last AND id < 29990", "id BETWEEN :first AND :last"])
def test_a_backfill_passes_over_rows_that_are_deleted_meanwhile(
    library: Database, op: Any, gone: str
) -> None:
    library.execute(LOANS)

    # Each window deletes what follows, or itself, before it is filled.
    op.backfill("loans", "id", f"WITH gone AS (DELETE FROM loans WHERE {gone} RETURNING id) {FILL} "
                "AND id NOT IN (SELECT id FROM gone)")  # fmt: skip

    assert unfilled(library) == 0


def test_a_backfill_leaves_rows_that_come_later_alone(library: Database, op: Any) -> None:
    library.execute(LOANS)

    op.backfill(
        "loans", "id", f"WITH new AS (INSERT INTO loans SELECT max(id) + 1 FROM loans RETURNING id) {FILL}"
    )

    assert one(library, "SELECT count(*) < 10 FROM library.loans WHERE due IS NULL") is True


def test_a_backfill_commits_each_window_and_goes_on_after_an_error(library: Database, op: Any) -> None:
    library.execute(
        f"{LOANS}; ALTER TABLE library.loans ADD CONSTRAINT bad CHECK (book_id <> 3000 OR due IS NULL)"
    )
    with pytest.raises(DBAPIError, match="bad"):
        op.backfill("loans", "id", FILL)
    # The first window, of a thousand rows, is committed.
    assert unfilled(library) == 4000
    library.execute("ALTER TABLE library.loans DROP CONSTRAINT bad")

    op.backfill("loans", "id", FILL)

    assert unfilled(library) == 0


def test_a_backfill_that_ended_writes_nothing_when_run_again(library: Database, op: Any) -> None:
    library.execute(LOANS)
    op.backfill("loans", "id", FILL)
    before = library.execute("SELECT id, xmin::text FROM library.loans ORDER BY id")

    op.backfill("loans", "id", FILL)

    assert library.execute("SELECT id, xmin::text FROM library.loans ORDER BY id") == before


def test_a_backfill_counts_the_rows_that_it_filled(
    library: Database, op: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="workflow_models")
    library.execute(f"{LOANS}; UPDATE library.loans SET due = '2020-01-01' WHERE id < 0")

    op.backfill("loans", "id", FILL)

    assert caplog.messages == ["  loans: 4286 rows filled"]
