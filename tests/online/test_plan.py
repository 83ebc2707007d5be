"""Refusals: of a whole plan, before its first step."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest

from tests.databases import Database, template
from tests.online.library import Chain, plain, revisions
from workflow_models.online import MigrationError

Clone: TypeAlias = Callable[[str], Database]
Chains: TypeAlias = Callable[..., Chain]

NOTHING = plain("SELECT", "SELECT")
LOSING = {"allow_data_loss": "true"}


def refused_upgrade(chain: Chain, library: Database, revision: str = "head") -> str:
    with pytest.raises(MigrationError) as refused:
        chain.upgrade(library, revision)
    return str(refused.value)


def refused_downgrade(chain: Chain, library: Database, revision: str = "base", **x: str) -> str:
    with pytest.raises(MigrationError) as refused:
        chain.downgrade(library, revision, **x)
    return str(refused.value)


# Upgrades.


def test_an_upgrade_that_a_later_revision_refuses_does_not_start(library: Database, chain: Chains) -> None:
    two = chain(
        plain("CREATE TABLE shelves ()", "DROP TABLE shelves"),
        "upgrade_refusals = (\"SELECT 'no shelf is free.', 'build one;'\",)\n" + NOTHING,
    )

    assert refused_upgrade(two, library) == (
        "error: this database cannot be upgraded yet.\n"
        "  Happened: no shelf is free.\n"
        "  Unchanged: the database is at base; nothing was done.\n"
        "  Next:\n"
        "    build one;\n"
        "    then run the same command again."
    )
    assert library.execute("SELECT to_regclass('library.shelves'), to_regnamespace('registry')") == [
        (None, None)
    ]


def test_all_reasons_and_all_statements_are_told_at_once_and_each_once(
    library: Database, chain: Chains
) -> None:
    one = "SELECT 'one', 'do one;' UNION ALL SELECT 'two', 'do two;'"
    more = "SELECT 'two', 'do two;' UNION ALL SELECT 'three', NULL"
    two = chain(
        f"upgrade_refusals = ({one!r}, {more!r})\n" + NOTHING,
        "upgrade_refusals = (\"SELECT 'four', 'do one;'\",)\n" + NOTHING,
    )

    assert refused_upgrade(two, library) == (
        "error: this database cannot be upgraded yet.\n"
        "  Happened:\n"
        "    one\n"
        "    two\n"
        "    three\n"
        "    four\n"
        "  Unchanged: the database is at base; nothing was done.\n"
        "  Next:\n"
        "    do one;\n"
        "    do two;\n"
        "    then run the same command again."
    )


def test_a_revision_that_is_not_in_the_plan_refuses_nothing(library: Database, chain: Chains) -> None:
    refusing = "upgrade_refusals = (\"SELECT 'no', NULL\",)\n" + NOTHING

    chain(NOTHING, NOTHING, refusing).upgrade(library, "lib2")

    assert revisions(library) == ["lib2"]


def test_what_is_already_applied_is_not_asked_again(library: Database, chain: Chains) -> None:
    once = "upgrade_refusals = (\"SELECT 'there', NULL WHERE to_regclass('shelves') IS NOT NULL\",)\n"
    two = chain(once + plain("CREATE TABLE shelves ()", "DROP TABLE shelves"), NOTHING)
    two.upgrade(library, "lib1")

    two.upgrade(library)

    assert revisions(library) == ["lib2"]


def test_reasons_with_colons_and_percent_signs_are_told_as_they_are(library: Database, chain: Chains) -> None:
    query = "SELECT '100% of shelf:a', 'ALTER %;'"

    assert "Happened: 100% of shelf:a\n" in refused_upgrade(
        chain(f"upgrade_refusals = ({query!r},)\n" + NOTHING), library
    )


# Downgrades that lose something.

LOSES = """
downgrade_losses = {"loans with a date": "SELECT count(*) FROM loans WHERE due IS NOT NULL"}
"""
BOOKS_GO = """
downgrade_drops = ("books",)
downgrade_losses = {"rows of books": "SELECT count(*) FROM books"}
""" + plain("SELECT", "DROP TABLE books")


def test_a_downgrade_that_a_later_step_of_it_would_lose_rows_by_does_not_start(
    library: Database, chain: Chains
) -> None:
    two = chain(BOOKS_GO, plain("CREATE TABLE shelves ()", "DROP TABLE shelves"))
    two.upgrade(library)

    assert refused_downgrade(two, library) == (
        "error: the downgrade would lose what cannot be derived again.\n"
        "  Happened: lib1: 10 rows of books\n"
        "  Unchanged: the database is at lib2; nothing was done.\n"
        "  Next: back it up; if it may go, add -x allow-data-loss=true."
    )
    assert library.execute("SELECT to_regclass('library.shelves') IS NULL") == [(False,)]
    assert revisions(library) == ["lib2"]


def test_every_loss_of_the_plan_is_counted(library: Database, chain: Chains) -> None:
    library.execute("UPDATE library.loans SET due = now() WHERE id > 7")
    two = chain(BOOKS_GO, LOSES + NOTHING)
    two.upgrade(library)

    assert (
        "  Happened:\n    lib2: 3 loans with a date\n    lib1: 10 rows of books\n  Unchanged: "
    ) in refused_downgrade(two, library)


def test_with_leave_to_lose_data_a_downgrade_runs(library: Database, chain: Chains) -> None:
    one = chain(BOOKS_GO)
    one.upgrade(library)

    one.downgrade(library, "base", **LOSING)

    assert library.execute("SELECT to_regclass('library.books')") == [(None,)]


def test_without_a_loss_a_downgrade_needs_no_leave(library: Database, chain: Chains) -> None:
    library.execute("DELETE FROM library.books")
    one = chain(BOOKS_GO)
    one.upgrade(library)

    one.downgrade(library, "base")

    assert library.execute("SELECT to_regclass('library.books')") == [(None,)]


def test_what_the_downgrade_leaves_is_not_counted(library: Database, chain: Chains) -> None:
    two = chain(BOOKS_GO, NOTHING)
    two.upgrade(library)

    two.downgrade(library, "lib1")

    assert revisions(library) == ["lib1"]


# Downgrades that reach into what others own. What is dropped is a table, a column, an index, a function.

OURS = """
creates = {
    "books": ("books_title_key", "books_pages_check", "idx_books_title", "Readers", "touch", "books_stat"),
    "loans": ("loans_book_id_fkey",),
}
downgrade_drops = ("books", "loans.due", "idx_books_title", "library.reader()", "SELECT 'library.shelf()'")
"""
MADE = """
    CREATE FUNCTION library.reader() RETURNS text LANGUAGE sql AS $$ SELECT 'ann' $$;
    CREATE FUNCTION library.shelf() RETURNS text LANGUAGE sql AS $$ SELECT 'a1' $$;
    ALTER TABLE library.books ADD UNIQUE (title), ADD CHECK (pages > 0), ADD COLUMN no serial;
    CREATE INDEX idx_books_title ON library.books (title, pages);
    CREATE POLICY "Readers" ON library.books USING (library.reader() = title);
    CREATE TRIGGER touch BEFORE UPDATE ON library.books FOR EACH ROW EXECUTE FUNCTION library.touch();
    CREATE STATISTICS library.books_stat ON title, pages FROM library.books;
    ALTER TABLE library.loans ADD FOREIGN KEY (book_id) REFERENCES library.books (id)
"""


BODIES = (NOTHING, OURS + NOTHING, NOTHING)


@template("library_made", base="library")
def library_made(database: Database) -> None:
    """After the revisions whose downgrade drops all that is in MADE."""
    with TemporaryDirectory() as folder:
        Chain(Path(folder), BODIES).upgrade(database)
    database.execute(MADE)


@pytest.fixture
def made(clone: Clone) -> Database:
    return clone("library_made")


@pytest.fixture
def three(chain: Chains) -> Chain:
    return chain(*BODIES)


def test_what_a_revision_has_created_stands_in_the_way_of_nothing(made: Database, three: Chain) -> None:
    three.downgrade(made, "lib1")

    assert revisions(made) == ["lib1"]


FOREIGN = {
    "a view of a table": (
        "CREATE VIEW library.report AS SELECT title FROM library.books",
        "rule _RETURN on view report depends on books",
    ),
    "a view of a column": (
        "CREATE VIEW library.report AS SELECT due FROM library.loans",
        "rule _RETURN on view report depends on loans.due",
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW library.report AS SELECT title FROM library.books",
        "rule _RETURN on materialized view report depends on books",
    ),
    "a foreign key": (
        "CREATE TABLE library.reviews (book_id integer REFERENCES library.books (id))",
        "constraint reviews_book_id_fkey on table reviews depends on books",
    ),
    "a trigger": (
        """
        CREATE TRIGGER audit AFTER INSERT ON library.books FOR EACH ROW EXECUTE FUNCTION library.touch()
        """,
        "trigger audit on table books depends on books",
    ),
    "a trigger on a column": (
        """
        CREATE TRIGGER audit AFTER UPDATE OF due ON library.loans
            FOR EACH ROW EXECUTE FUNCTION library.touch()
        """,
        "trigger audit on table loans depends on loans.due",
    ),
    "a policy of another table that calls a function": (
        "CREATE POLICY own ON library.loans USING (reader = library.reader())",
        "policy own on table loans depends on library.reader()",
    ),
    "a policy of ours under another name": (
        "CREATE POLICY other ON library.books USING (true)",
        "policy other on table books depends on books",
    ),
    "an object of another table that is named like one of ours": (
        'CREATE POLICY "Readers" ON library.loans USING (reader = library.shelf())',
        "policy Readers on table loans depends on library.shelf()",
    ),
    "an index": (
        "CREATE INDEX by_due ON library.loans (due)",
        "index by_due depends on loans.due",
    ),
    "a check": (
        "ALTER TABLE library.loans ADD CONSTRAINT not_late CHECK (due > '2000-01-01')",
        "constraint not_late on table loans depends on loans.due",
    ),
    "a child table": (
        "CREATE TABLE library.rare () INHERITS (library.books)",
        "table rare depends on books",
    ),
    "a child table of one that loses a column": (
        "CREATE TABLE library.rare () INHERITS (library.loans)",
        "table rare depends on loans.due",
    ),
    "a default of another table that calls a function": (
        "CREATE TABLE library.visits (reader text DEFAULT library.reader())",
        "default value for column reader of table visits depends on library.reader()",
    ),
    "a generated column": (
        "ALTER TABLE library.loans ADD COLUMN late integer GENERATED ALWAYS AS (due - '2000-01-01') STORED",
        "default value for column late of table loans depends on loans.due",
    ),
    "a function of a table's row": (
        "CREATE FUNCTION library.label(library.books) RETURNS text LANGUAGE sql AS 'SELECT $1.title'",
        "function label(books) depends on books",
    ),
    "a column of a table's row type": (
        "CREATE TABLE library.deleted (book library.books)",
        "column book of table deleted depends on books",
    ),
    "a function whose body is parsed": (
        """
        CREATE FUNCTION library.late() RETURNS bigint LANGUAGE sql
            BEGIN ATOMIC SELECT count(*) FROM library.loans WHERE due < now(); END
        """,
        "function late() depends on loans.due",
    ),
}


@pytest.mark.parametrize(("statement", "told"), FOREIGN.values(), ids=FOREIGN)
def test_what_others_hung_on_ours_refuses_the_downgrade_before_its_first_step_whatever_the_leave(
    made: Database, three: Chain, statement: str, told: str
) -> None:
    made.execute(statement)

    for leave in ({}, LOSING):
        assert refused_downgrade(three, made, "lib1", **leave) == (
            "error: the downgrade would drop what other objects need.\n"
            f"  Happened: {told}\n"
            "  Unchanged: the database is at lib3; nothing was done.\n"
            "  Next: drop or change those objects yourself, then run the same command again."
        )
        assert revisions(made) == ["lib3"]


def test_every_foreign_object_is_named(made: Database, three: Chain) -> None:
    made.execute(
        """
        CREATE VIEW library.report AS SELECT title FROM library.books;
        CREATE VIEW library.dates AS SELECT due FROM library.loans;
        """
    )

    assert (
        "  Happened:\n"
        "    rule _RETURN on view dates depends on loans.due\n"
        "    rule _RETURN on view report depends on books\n"
        "  Unchanged: "
    ) in refused_downgrade(three, made, "lib1")


def test_foreign_objects_are_told_before_losses(library: Database, chain: Chains) -> None:
    one = chain(BOOKS_GO)
    one.upgrade(library)
    library.execute("CREATE VIEW library.report AS SELECT title FROM library.books")

    assert "what other objects need" in refused_downgrade(one, library)


def test_what_is_gone_already_stands_in_the_way_of_nothing(made: Database, three: Chain) -> None:
    made.execute(
        "DROP TABLE library.books CASCADE; ALTER TABLE library.loans DROP COLUMN due;"
        "DROP FUNCTION library.reader(), library.shelf()"
    )

    three.downgrade(made, "lib1")

    assert revisions(made) == ["lib1"]
