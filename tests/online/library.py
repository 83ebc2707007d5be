"""Another domain, with revisions of its own: `workflow_models.online` knows nothing of workflows."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.databases import Database, template

ENV = """
from sqlalchemy import MetaData, make_url
from workflow_models.online.run import Target, run

run(lambda x: Target(
    url=make_url(x["url"]), metadata=MetaData(), version_table_schema="registry", search_path="library",
))
"""
HEADER = """
revision, down_revision, branch_labels, depends_on = {revision!r}, {down_revision!r}, None, None
from alembic import op
"""


@template("library")
def library(database: Database) -> None:
    database.execute(
        """
        CREATE SCHEMA library;
        CREATE TABLE library.books (id integer PRIMARY KEY, title text NOT NULL, pages integer);
        CREATE TABLE library.loans (id integer PRIMARY KEY, book_id integer, reader text, due date);
        INSERT INTO library.books SELECT n, 'Book ' || n, 100 + n FROM generate_series(1, 10) n;
        INSERT INTO library.loans SELECT n, n, 'reader ' || n, NULL FROM generate_series(1, 10) n;
        CREATE TABLE library."Rare Books" (LIKE library.books INCLUDING ALL);
        INSERT INTO library."Rare Books" TABLE library.books;
        CREATE FUNCTION library.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE SCHEMA elsewhere;
        """
    )


def plain(up: str, down: str) -> str:
    """A revision of one statement in either direction, in the transaction of the revision."""
    return f"def upgrade(): op.execute({up!r})\ndef downgrade(): op.execute({down!r})\n"


class Chain:
    """Revisions `lib1`, `lib2`, … with these bodies."""

    def __init__(self, folder: Path, bodies: Sequence[str]) -> None:
        self._folder = folder
        (folder / "versions").mkdir()
        (folder / "env.py").write_text(ENV)
        for number, body in enumerate(bodies, 1):
            header = HEADER.format(
                revision=f"lib{number}", down_revision=f"lib{number - 1}" if number > 1 else None
            )
            (folder / "versions" / f"lib{number}.py").write_text(header + body)

    def upgrade(self, database: Database, revision: str = "head", **x: str) -> None:
        command.upgrade(self._config(database, x), revision)

    def downgrade(self, database: Database, revision: str, **x: str) -> None:
        command.downgrade(self._config(database, x), revision)

    @property
    def script(self) -> ScriptDirectory:
        return ScriptDirectory(str(self._folder))

    def _config(self, database: Database, x: dict[str, str]) -> Config:
        options = {name.replace("_", "-"): value for name, value in x.items()}
        config = Config(attributes={"x": {"url": database.url(), **options}})
        config.set_main_option("script_location", str(self._folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        return config


def revisions(database: Database, schema: str = "registry") -> list[str]:
    """What the version table says."""
    return [revision for (revision,) in database.execute(f"SELECT version_num FROM {schema}.alembic_version")]


_BLOCKED = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND %(holder)s = ANY (pg_blocking_pids(pid))
"""


class Migrator:
    """A run in a thread of its own, since it has to wait."""

    def __init__(self, database: Database, run: Callable[[], object]) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1)
        self._ended: Future[object] = self._thread.submit(run)

    def until_blocked_by(self, holder: psycopg.Connection[Any], *, other_than: int = 0) -> int:
        """The process id of the migrator's backend, once it waits for `holder`.

        :param other_than: a backend that shall not count: that of an earlier try.
        """
        return self._until(
            f"{_BLOCKED} AND pid <> %(other_than)s LIMIT 1",
            {"holder": holder.info.backend_pid, "other_than": other_than},
        )

    def until_not_blocked_by(self, holder: psycopg.Connection[Any]) -> None:
        """Return once nobody waits for `holder`: a try has failed."""
        self._until(f"SELECT 1 WHERE NOT EXISTS ({_BLOCKED})", {"holder": holder.info.backend_pid})

    def until_it_says(self, text: str, log: pytest.LogCaptureFixture) -> None:
        """Return once it has logged a message with that text."""
        while text not in log.text:
            self._must_go_on()

    def result(self) -> object:
        """What the run returned, once it has ended; raises what it raised."""
        self._thread.shutdown()
        return self._ended.result()

    def _until(self, query: str, parameters: dict[str, object]) -> int:
        with self._database.connect(self._database.superuser) as observer:
            while True:
                row = observer.execute(query.encode(), parameters).fetchone()
                if row:
                    return int(row[0])
                self._must_go_on()

    def _must_go_on(self) -> None:
        if wait([self._ended], timeout=0.01).done:
            raise AssertionError(f"did not wait: {self._ended.exception() or 'it succeeded'}")
