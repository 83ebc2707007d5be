"""The files that docs/directives.md shows, as a chain; its other examples are run with all documents."""

import re
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from tests.command import PROJECT
from tests.databases import Database

PAGE = (PROJECT / "docs" / "directives.md").read_text()


@pytest.fixture
def config(tmp_path: Path, library: Database) -> Config:
    library.execute("ALTER TABLE library.loans ADD lent date DEFAULT '2026-01-01', DROP due")
    env, revision = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(env)
    (tmp_path / "versions" / "library0001.py").write_text(revision)
    config = Config(attributes={"x": {"url": library.url()}})
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    return config


def test_the_revision_on_the_page_goes_up_and_down(library: Database, config: Config) -> None:
    command.upgrade(config, "head")

    assert library.execute("SELECT DISTINCT due::text FROM library.loans") == [("2026-01-29",)]
    assert library.execute("SELECT relname FROM pg_class WHERE relname LIKE 'loans_d%'") == [("loans_due",)]

    command.downgrade(config, "base")

    assert library.execute("SELECT 1 FROM pg_attribute WHERE attname = 'due'") == []


def test_every_directive_is_on_the_page() -> None:
    source = (PROJECT / "src" / "workflow_models" / "online" / "directives.py").read_text()
    directives = re.findall(r"@classmethod\n    def (\w+)", source)

    assert directives
    assert [name for name in directives if f"op.{name}(" not in PAGE] == []
