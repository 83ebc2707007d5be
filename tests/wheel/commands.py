"""What the installed commands do to an application's database, where there is no checkout.

usage: commands.py <folder of the application's SQL files> <page with the lines for a service's env.py>
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg

from workflow_models import embedded, migrations

BIN = Path(sys.prefix, "bin")
APPLICATION, PAGE = map(Path, sys.argv[1:])


def run(command: str, *arguments: str, status: int = 0, database: str) -> str:
    """Give what it prints, once it has ended as it should."""
    done = subprocess.run(
        [BIN / command, *arguments],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": embedded.url(database=database)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, (command, arguments, done)
    return done.stdout


def connect(database: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(embedded.url(database=database).replace("+psycopg", ""), autocommit=True)


with connect("live") as connection:
    # Roles are the server's: an upgrade of another database has made the third.
    connection.execute("CREATE ROLE anon NOLOGIN; CREATE ROLE service_role NOLOGIN")
    for script in ("base", "data", "orchestration", "orchestration_data", "half_fixed"):
        connection.execute((APPLICATION / f"{script}.sql").read_bytes())

assert json.loads(run("workflow-models", "current", "--json", database="live"))["revisions"] == []
run("workflow-models", "upgrade", database="live")
assert json.loads(run("workflow-models", "current", "--json", database="live"))["at_head"]
run("workflow-models", "check", database="live")
print("upgraded an application's database:")
print(run("workflow-models", "show", database="live").partition("\n\n")[0])

run("workflow-models", "downgrade", "base", status=1, database="live")
assert run("workflow-models", "sql", database="live").count("CREATE INDEX CONCURRENTLY") > 4
run("workflow-models", "typescript", "--output", "types.ts", database="live")
run("workflow-models", "typescript", "--check", "types.ts", database="live")

# As a second version location of a service, by the name that only an installed package has.
run("alembic", "init", "alembic", database="service")
ini, env = Path("alembic.ini"), Path("alembic/env.py")
(locations,) = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)
(run_env,) = re.findall(r"```py\n([^`]*run_env\(.*?)```", PAGE.read_text(), re.DOTALL)
url = embedded.url(database="service").replace("%", "%%")
ini.write_text(
    ini.read_text()
    .replace("path_separator = os\n", locations)
    .replace("driver://user:pass@localhost/dbname", url)
)
env.write_text(env.read_text().partition("if context.is_offline_mode():")[0] + run_env)
run("alembic", "upgrade", "workflow_models@head", database="service")
assert migrations.current(embedded.url(database="service")) == migrations.known_revisions()[-1:]
print("upgraded as a second version location of a service")
