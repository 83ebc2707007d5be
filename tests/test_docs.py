"""What the documents show: blocks run as written, drawn things are as drawn today, named ones are there."""

import ast
import itertools
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import grimp
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine
from sybil import Sybil

from tests.application.states import REVISIONS, at
from tests.command import stand_ins
from tests.databases import Database
from tests.pages import (
    AFTER,
    BEFORE,
    ELSEWHERE,
    PAGES,
    PLACEHOLDERS,
    REPLACED,
    ROOT,
    Reader,
    blocks,
    is_run_elsewhere,
    title,
)
from tests.server import Choice
from workflow_models import ddl, metadata
from workflow_models.cli import main
from workflow_models.ddl.item import items_of
from workflow_models.migrations import alembic_config, include_object

Clone = Callable[[str], Database]

# The state that a page starts from, where its own blocks upgrade it.
STATES = {
    "README.md": "empty",
    "docs/adopting.md": "adopted",
    "docs/beside.md": "empty",
    "docs/command.md": "empty",
    "docs/operating.md": "adopted",
    "docs/services.md": "empty",
}
# Pages whose reader has a service with an Alembic of its own.
OF_A_SERVICE = ("docs/beside.md",)
each_page = pytest.mark.parametrize("page", PAGES, ids=title)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Those that the pages call, in a folder."""
    folder = tmp_path_factory.mktemp("programs")
    with stand_ins(folder, "alembic", "workflow-models"):
        yield folder


@pytest.fixture
def checkout(tmp_path: Path, programs: Path) -> Path:
    """What the commands of a page need of one."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(programs)
    for name in ("Makefile", "alembic", "alembic.ini", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def service(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "examples/service", tmp_path / "service"))


@pytest.fixture
def database(page: Path, clone: Clone) -> Iterator[Database]:
    database = clone(STATES.get(title(page), "upgraded"))
    yield database
    database.execute("DROP ROLE IF EXISTS app_service", user=database.superuser)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=title)
def test_every_block_runs_as_written(
    page: Path, database: Database, checkout: Path, service: Path, programs: Path, choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = service if title(page) in OF_A_SERVICE else checkout
    reader = Reader(database, folder, programs, choice.binaries)
    monkeypatch.setenv("DATABASE_URL", reader.url)
    monkeypatch.setenv("SERVICE_DATABASE_URL", database.url("app_service", "…"))

    document = Sybil(reader.parsers()).parse(page)
    examples = {example.line: example for example in document.examples()}
    try:
        for example in examples.values():
            example.evaluate()
    finally:
        for engine in document.namespace.values():
            if isinstance(engine, Engine):
                engine.dispose()

    assert [
        block
        for block in blocks(page)
        if block.line not in examples and not is_run_elsewhere(page, block.source)
    ] == []


def test_what_is_said_of_blocks_is_said_of_one_that_is_there() -> None:
    every = [block.source for page in PAGES for block in blocks(page)]
    lines = [line.removeprefix("    - run: ") for source in every for line in source.splitlines()]

    assert [
        text for text in (*PLACEHOLDERS, *BEFORE, *AFTER) if not any(text in source for source in every)
    ] == []
    assert [line for line in REPLACED if line not in lines] == []
    for name, text, test in ELSEWHERE:
        (block,) = [block for block in blocks(ROOT / name) if text in block.source]
        assert takes((ROOT / test).read_text(), ROOT / name, block.source, text), (name, text, test)


def takes(program: str, page: Path, block: str, text: str) -> bool:
    """Whether it names the page, and finds the block there: by this text of it, or by its fence."""
    strings = literals(program)
    fences = [string for string in strings if string.startswith("```")]
    found = [source for fence in fences for source in re.findall(fence, page.read_text(), re.DOTALL)]
    return page.name in program and (text in strings or block in found)


def literals(program: str) -> set[str]:
    """The strings in it, without its docstrings."""
    nodes = list(ast.walk(ast.parse(program)))
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
    strings = [node for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
    return {node.value for node in strings if isinstance(node.value, str)}


def shown(page: str, text: str) -> str:
    """The block of a page that has a text in it."""
    (block,) = [block for block in blocks(ROOT / page) if text in block.source]
    return block.source


def test_the_diagram_in_the_readme_is_that_of_the_models() -> None:
    assert shown("README.md", "erDiagram") == CliRunner().invoke(main, ["diagram"]).stdout


def test_what_the_architecture_draws_is_there_and_needs_what_its_arrows_lead_to() -> None:
    page = "docs/architecture.md"
    lines = re.sub(r'[\[(]+".*?"[\])]+| -- ".*?"', "", shown(page, "flowchart")).splitlines()[1:]
    arrows = [
        (needing, needed)
        for sides in (re.split(" *--> *", line.strip()) for line in lines)
        for left, right in itertools.pairwise(sides)
        for needing, needed in itertools.product(left.split(" & "), right.split(" & "))
    ]
    graph = grimp.build_graph("workflow_models")
    modules = {module.split(".")[1] for module in graph.modules if "." in module}
    # One box is of several.
    models = re.findall(r"\w+", shown(page, "flowchart").partition("models: ")[2].partition('"')[0])
    parts = {"models": models}

    def needs(needing: str, needed: str) -> bool:
        return any(
            graph.find_shortest_chain(f"workflow_models.{one}", f"workflow_models.{other}", as_packages=True)
            for one, other in itertools.product(parts.get(needing, [needing]), parts.get(needed, [needed]))
        )

    outside = {"service", "person", "tests", "chain", "database"}
    assert {end for arrow in arrows for end in arrow} <= modules | parts.keys() | outside
    between_modules = [arrow for arrow in arrows if not outside & set(arrow)]
    assert [arrow for arrow in between_modules if not needs(*arrow)] == []


def test_what_the_architecture_lists_is_there() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(.*?)`", row)]
    folders = ROOT, ROOT / "src", ROOT / "src/workflow_models"

    assert "definition.py" in names
    assert [
        name
        for name in names
        if not any((folder / file).exists() for folder in folders for file in (name, f"{name}.py"))
    ] == []


def test_the_proof_that_is_shown_finds_nothing_wrong_with_the_last_revision(clone: Clone) -> None:
    database = clone(at("empty", REVISIONS[-2]))
    namespace: dict[str, Any] = {"metadata": metadata, "configure": {"include_object": include_object}}
    exec(shown("docs/ddl.md", "def test_the_newest_revision"), namespace)

    url = database.url(database.superuser)
    namespace["test_what_autogenerate_would_write_now"](url)
    namespace["test_the_newest_revision"](url, lambda copy: alembic_config(x={"url": copy}))


def test_the_policy_that_is_shown_is_that_of_the_example() -> None:
    policy = eval(shown("docs/services.md", "Users can view comments"), vars(ddl))
    models = runpy.run_path(str(ROOT / "examples/service/workflow_service/models.py"))
    table = models["WorkflowComment"].__table__

    assert policy.statements(table, None) in [
        item.statements(table, None) for item in items_of(table, ddl.Policy)
    ]


def test_the_revision_that_is_depended_on_is_the_last_one() -> None:
    assert shown("docs/beside.md", "depends_on =") == f'depends_on = "{REVISIONS[-1]}"\n'


def rows_below(heading: str) -> list[list[str]]:
    """The cells of each row of a table of the page on the command."""
    table = (ROOT / "docs/command.md").read_text().partition(f"{heading}\n|---|")[2].partition("\n\n")[0]
    return [row.strip("| ").split(" | ") for row in table.splitlines()[1:]]


def test_the_page_on_the_command_lists_every_command() -> None:
    names = [name for row in rows_below("| | |") for name in re.findall(r"`([\w-]+)`", row[0])]

    assert sorted(names) == sorted(main.commands)


def test_the_json_that_is_shown_is_what_the_commands_print(clone: Clone) -> None:
    database = clone("upgraded")
    database.execute("CREATE INDEX idx_mine ON workflow_execution_logs (status)")
    old = {"sweep": ["--older-than", "2h"], "prune": ["--older-than", "90d"]}
    rows = {name.strip("`"): text for name, text in rows_below("| `--json` of | gives |")}

    for name, text in rows.items():
        arguments = [name, "--json", "--url", database.url(), *old.get(name, [])]
        printed = CliRunner().invoke(main, arguments).stdout
        assert f"`{printed.strip()}`" in text
    assert sorted(rows) == sorted(
        name
        for name, command in main.commands.items()
        if any("--json" in option.opts for option in command.params)
    )


def test_the_exit_statuses_that_are_listed_are_those_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    def status(*arguments: str) -> str:
        return str(CliRunner().invoke(main, arguments).exit_code)

    statuses = [status("diagram"), status("show", "--url", "mysql://localhost"), status("upgarde")]
    monkeypatch.setattr("workflow_models.diagram.mermaid", interrupt)
    statuses.append(status("diagram"))

    assert [row[0] for row in rows_below("| exit status | |")] == statuses


def test_the_extras_that_are_listed_bring_what_is_said() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"none": project["dependencies"], **project["optional-dependencies"]}
    # One of ours that needs another is listed with that one's name.
    of_ours = re.compile(r"workflow-models\[(.*)\]")
    brought = {
        extra: [of_ours.sub(r"\1", re.split("[<>=]", requirement)[0]) for requirement in requirements]
        for extra, requirements in extras.items()
        if extra != "dev"
    }

    listed = rows_below("| extra | brings | for |")
    assert {extra.strip("`"): re.findall("`(.*?)`", brings) for extra, brings, _ in listed} == brought


@each_page
def test_commands_revisions_and_extras_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    commands = [shlex.split(named) for named in re.findall(r"`((?:make|workflow-models) [^`…]+)`", text)]
    provided = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras = ",".join(re.findall(r"(?:workflow-models|pip install \.)\[([\w,]+)\]", text))

    for program, *arguments in commands:
        if program == "workflow-models":
            name, *options = arguments
            assert name in main.commands
            # One that is only named lacks what it has to be told.
            if options:
                main.commands[name].make_context(name, options)
        else:
            subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, stdout=DEVNULL, check=True)
    assert set(re.findall(r"\bwf\d{4}_\w+", text)) <= set(REVISIONS)
    assert set(filter(None, extras.split(","))) <= provided.keys()


@each_page
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []
