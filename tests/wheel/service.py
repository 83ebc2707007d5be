"""The example service as its README.md says: tested, and then run, from the installed wheel.

usage: service.py <folder of the service> <docs/services.md>
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import psycopg
from sqlalchemy import make_url

from workflow_models import embedded

SERVICE, PAGE = map(Path, sys.argv[1:])
# On a server of its own: nobody has made any role there. It asks no login for a password.
_SUPERUSER = make_url(embedded.url(Path("service_server"), "service_alone")).set(drivername="postgresql")
SUPERUSER, OWNER, LOGIN = (
    _SUPERUSER.set(username=user).render_as_string() for user in (embedded.SUPERUSER, "owner", "app_service")
)
# What the reader of README.md fills in.
PLACEHOLDERS = {
    "postgresql://owner@localhost:5432/app": OWNER,
    "postgresql://app_service:$password@localhost:5432/app": LOGIN,
}
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join(map(str, [Path(sys.prefix, "bin"), embedded.binaries(), os.environ["PATH"]])),
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_QUIET": "1",
    "PYTEST_ADDOPTS": "--quiet -p no:cacheprovider",
    # Any that is free; it says which.
    "UVICORN_PORT": "0",
}
# The dependency of the page in an application: what it says is committed before the response is sent.
APPLICATION = """
import os
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header
from sqlalchemy import select
from workflow_models import WorkflowDefinition
from workflow_models.tenancy import AsyncTenantSession

{sessions}

async def current_user(user: Annotated[UUID, Header()]) -> UUID:
    return user


{dependency}

app = FastAPI()


@app.post("/names")
async def add(session: Session) -> None:
    session.add(
        WorkflowDefinition(
            organization_id=session.own_organization, name="Greet", natural_language_prompt="Greet",
            workflow_json={{}}, trigger_type="manual",
        )
    )
"""


def block(page: Path, language: str, text: str) -> str:
    """The one of that language that has this text in it."""
    blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    (found,) = [source for source in blocks if text in source]
    assert isinstance(found, str)
    return found


def bash(script: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", script]


@contextmanager
def serving(script: str, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[str]:
    """Run what ends in a server, until the block ends; gives its address."""
    process = subprocess.Popen(
        bash(script), cwd=SERVICE, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stderr is not None
        try:
            said = ""
            for line in process.stderr:
                said += line
                if listening := re.search(r"running on (http://\S+)", line):
                    yield listening[1]
                    break
            else:
                raise AssertionError(said)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.stderr.read()


subprocess.run(bash(block(SERVICE / "README.md", "sh", "mypy")), cwd=SERVICE, env=ENVIRONMENT, check=True)

running = block(SERVICE / "README.md", "sh", "uvicorn")
for placeholder, url in PLACEHOLDERS.items():
    assert placeholder in running
    running = running.replace(placeholder, shlex.quote(url))
with psycopg.connect(SUPERUSER, autocommit=True) as connection:
    connection.execute("CREATE ROLE owner LOGIN CREATEROLE; ALTER DATABASE service_alone OWNER TO owner")
with serving(running) as address, urlopen(f"{address}/openapi.json") as response:
    assert b'"title":"Workflows"' in response.read()
print("ran the example service")

with psycopg.connect(OWNER, autocommit=True) as connection:
    (ada,) = connection.execute(
        "WITH acme AS (INSERT INTO organizations (name) VALUES ('Acme') RETURNING id)"
        " INSERT INTO profiles (id, organization_id, role)"
        " SELECT gen_random_uuid(), id, 'admin' FROM acme RETURNING id::text"
    ).fetchone() or (None,)
    (SERVICE / "names.py").write_text(
        APPLICATION.format(
            sessions=block(PAGE, "python", "import AsyncTenantSessionmaker"),
            dependency=block(PAGE, "py", "async def tenant_session"),
        )
    )
    with serving("uvicorn names:app", {**ENVIRONMENT, "SERVICE_DATABASE_URL": LOGIN}) as address:
        urlopen(Request(f"{address}/names", method="POST", headers={"User": ada}))
        assert connection.execute("SELECT name FROM workflow_definitions").fetchall() == [("Greet",)]
print("a session of the page was committed before the response")
