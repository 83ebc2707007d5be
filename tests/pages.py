"""The pages of the documents, and a reader who does what one of them says, block after block."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from sybil import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.typing import Parser

from tests.databases import OWNER, Database

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]

# What stands for the URL of one's own database, and is replaced by that of the test's.
PLACEHOLDERS = (
    "postgresql://owner@localhost:5432/app",
    "'postgresql://postgres:<password>@db.<project>.supabase.co:5432/postgres'",
    "${{ secrets.MIGRATION_DATABASE_URL }}",
)

# Lines that are not run as written, what is run instead, and why.
REPLACED = {
    # It makes a `.venv` and a server: tests/ddl/test_from_nothing.py upgrades in a copied checkout.
    "make upgrade": "make --dry-run upgrade",
    # It would run this test.
    "make test": "make --dry-run test",
    # It downloads; tests/wheel/run.sh installs the wheel, and the extras are compared with pyproject.toml.
    "pip install 'workflow-models[cli]'": "true",
    'pip install "workflow-models[asyncio,cli]" "psycopg[binary]"': "true",
    "pip install .[migrations]": "true",
    # Supabase's CLI, and a project of theirs: test_export.py runs the files as it does ...
    "supabase db push": "true",
    # ... and test_supabase.py asks what its linter asks.
    'supabase db advisors --remote="$MIGRATION_DATABASE_URL" --level info': ': "$MIGRATION_DATABASE_URL"',
}

# What a block finds, by a text of it.
BEFORE = {
    "typescript --check": """
        psql --quiet -c "CREATE INDEX idx_mine ON workflow_execution_logs (status)" "$DATABASE_URL"
        mkdir -p src/types
        workflow-models typescript > src/types/workflow-models.ts
    """,
}
# What fails where a block has not done what it is for.
AFTER = {
    "_WORKFLOW_MODELS_COMPLETE=": "complete -p workflow-models",
    "-f upgrade.sql": 'psql --quiet -c "TABLE workflow_private.alembic_version" "$DATABASE_URL" | grep wf',
    "export supabase/migrations": "ls supabase/migrations/*.sql",
}

# A page, a text of one of its blocks, and the test that runs that block.
ELSEWHERE = [
    ("README.md", "erDiagram", "tests/test_docs.py"),
    ("docs/architecture.md", "flowchart", "tests/test_docs.py"),
    ("docs/adopting.md", "select=*", "tests/test_supabase.py"),
    ("docs/beside.md", "include_name=", "tests/test_beside.py"),
    ("docs/beside.md", "upgrade(config", "tests/test_beside.py"),
    ("docs/beside.md", "version_locations", "tests/test_beside.py"),
    ("docs/beside.md", "run_env(", "tests/test_beside.py"),
    ("docs/beside.md", "workflow_models@head", "tests/test_beside.py"),
    ("docs/beside.md", "depends_on =", "tests/test_docs.py"),
    ("docs/directives.md", "Target(", "tests/online/test_directives_page.py"),
    ("docs/directives.md", "library0001", "tests/online/test_directives_page.py"),
    ("docs/performance.md", "CREATE ROLE workflow_super_admin", "tests/test_bench.py"),
    ("docs/performance.md", "allow_extra =", "tests/test_bench.py"),
    ("docs/performance.md", "super_admin_role=", "tests/test_bench.py"),
    ("docs/services.md", "async def tenant_session", "tests/wheel/service.py"),
    ("docs/services.md", "Users can view comments", "tests/test_docs.py"),
    ("examples/service/README.md", "mypy", "tests/wheel/service.py"),
    ("examples/service/README.md", "uvicorn", "tests/wheel/service.py"),
]

# An earlier block's exports are still there, as in a shell that one goes on typing into.
SCRIPT = """\
set -euo pipefail
source "$SESSION"
trap 'export -p > "$SESSION"' EXIT
{commands}
"""


class Block(NamedTuple):
    """A fenced block, with the line of its fence."""

    line: int
    language: str
    source: str


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, whatever its language."""
    text = page.read_text()
    fenced = re.finditer(r"^([ >]*)(`{3,}|~{3,}) *(.*)\n((?:.*\n)*?)\1\2$", text, re.MULTILINE)
    return [Block(text.count("\n", 0, found.start()) + 1, found[3], found[4]) for found in fenced]


def is_run_elsewhere(page: Path, source: str) -> bool:
    return any(title(page) == name and text in source for name, text, _ in ELSEWHERE)


@dataclass(frozen=True)
class Reader:
    """Has a database, and a shell in a folder with what is in a checkout or a project of one's own."""

    database: Database
    folder: Path
    # Where programs stand that take the place of those of the same name.
    programs: Path
    # Those of the server, `psql` among them; None where they are in the path.
    binaries: Path | None

    def parsers(self) -> Sequence[Parser]:
        """What finds the blocks of a page that are run here, and runs them."""
        evaluators = {"sh": self._shell, "sql": self._sql, "yaml": self._pipeline}
        return [
            PythonCodeBlockParser(),
            *(CodeBlockParser(language, evaluator) for language, evaluator in evaluators.items()),
        ]

    @property
    def url(self) -> str:
        """As psql takes it too."""
        return self.database.url().replace("+psycopg", "", 1)

    def _shell(self, example: Example) -> None:
        if not is_run_elsewhere(Path(example.path), example.parsed):
            self._run(self._filled_in(example.parsed, shlex.quote(self.url)))

    def _sql(self, example: Example) -> None:
        # Of roles that are there, which on a newer PostgreSQL only who made them may grant.
        user = self.database.superuser if "CREATE ROLE" in example.parsed else OWNER
        self.database.execute(example.parsed, user=user)

    def _pipeline(self, example: Example) -> None:
        """What a step uses is another's, and named with its version; what it runs is run."""
        for job in yaml.safe_load(self._filled_in(example.parsed, json.dumps(self.url))).values():
            for step in job["steps"]:
                if "run" in step:
                    self._run(step["run"], **step.get("env", {}))
                else:
                    assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])

    def _filled_in(self, source: str, url: str) -> str:
        for placeholder in PLACEHOLDERS:
            source = source.replace(placeholder, url)
        return source

    def _run(self, block: str, **environment: str) -> None:
        commands = [
            *(commands for text, commands in BEFORE.items() if text in block),
            *(REPLACED.get(line, line) for line in block.splitlines()),
            *(commands for text, commands in AFTER.items() if text in block),
        ]
        session = self.folder / "session"
        session.touch()
        path = [
            self.programs,
            Path(sys.executable).parent,
            *([self.binaries] if self.binaries else []),
            os.environ["PATH"],
        ]
        done = subprocess.run(
            ["bash", "-c", SCRIPT.format(commands="\n".join(commands))],
            cwd=self.folder,
            env={
                "DATABASE_URL": self.url,
                "HOME": str(self.folder),
                "PATH": os.pathsep.join(map(str, path)),
                "SESSION": str(session),
                **environment,
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
