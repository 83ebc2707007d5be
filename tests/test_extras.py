"""A module that lacks an extra says which one to install; test_cli.py has the command."""

import subprocess
import sys

import pytest

MIGRATIONS = "workflow_models.migrations", "migrations"
ASYNC_SESSIONS = "workflow_models.tenancy_asyncio", "asyncio"


@pytest.mark.parametrize(
    ("missing", "code", "needing"),
    [
        ("alembic", "from workflow_models import migrations", MIGRATIONS),
        ("psycopg", "from workflow_models import migrations", MIGRATIONS),
        ("greenlet", "from workflow_models.tenancy import AsyncTenantSession", ASYNC_SESSIONS),
    ],
)
def test_a_missing_extra_is_named(missing: str, code: str, needing: tuple[str, str]) -> None:
    module, extra = needing
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['{missing}'] = None; {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.returncode == 1
    assert ran.stderr.endswith(
        f"workflow_models.errors.MissingExtraError: {module} needs the extra `{extra}`.\n"
        f"  Happened: import of {missing} halted; None in sys.modules.\n"
        f"  Next: pip install 'workflow-models[{extra}]'\n"
    )
