"""What the documents show: examples run as written, drawn things are as drawn today."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.databases import Database
from workflow_models.cli import main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_examples_run_as_written(
    document: Path, upgraded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", upgraded.url())
    monkeypatch.setenv("SERVICE_DATABASE_URL", upgraded.url("authenticator"))

    parsed = Sybil([PythonCodeBlockParser()]).parse(document)
    try:
        for example in parsed.examples():
            example.evaluate()
    finally:
        for engine in parsed.namespace.values():
            if isinstance(engine, Engine):
                engine.dispose()


def test_the_diagram_in_the_readme_is_that_of_the_models() -> None:
    drawn = re.findall(r"```mermaid\n(.*?)```", README.read_text(), re.DOTALL)

    assert drawn == [CliRunner().invoke(main, ["diagram"]).stdout]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []
