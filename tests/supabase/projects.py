"""The states that a Supabase project may be in, each a template to clone."""

from contextlib import suppress
from pathlib import Path

from psycopg import sql
from psycopg.errors import DuplicateObject, UniqueViolation

from tests.application import script
from tests.databases import Database, template
from tests.server import PASSWORD
from workflow_models import migrations

OWNER = "supabase_postgres"
"""The role that migrates: neither superuser nor owner of `auth`, but above row security."""

PROJECTS = ("supabase_new", "supabase_new_opt_in", "supabase_live", "supabase_live_opt_in")
"""Empty or with the application in it, before and after Supabase took its default grants back."""


def _project_script(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text()


def admit_owner(database: Database) -> None:
    """Let the project's own role in; grants on a database do not come along with a clone of it."""
    owner = sql.Identifier(OWNER)
    with database.connect(database.superuser) as connection:
        # Several test processes may share a running server.
        with suppress(DuplicateObject, UniqueViolation):
            connection.execute(
                sql.SQL(
                    """
                    CREATE ROLE {} LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD {}
                        IN ROLE anon, authenticated, service_role
                    """
                ).format(owner, PASSWORD)
            )
            connection.execute(
                sql.SQL("ALTER ROLE {} SET search_path = '$user', public, extensions").format(owner)
            )
        connection.execute(
            sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(sql.Identifier(database.name), owner)
        )


@template("supabase_new")
def new(database: Database) -> None:
    """A project without any table of its own."""
    admit_owner(database)
    database.execute(_project_script("project"), user=database.superuser)


@template("supabase_live", base="supabase_new")
def live(database: Database) -> None:
    """A project with the application in it, whose tables everyone may use, as was the default."""
    # What stands before is the platform's.
    _, start, application = script("base").partition("CREATE FUNCTION update_updated_at_column")
    for statements in (
        start + application,
        script("data"),
        script("orchestration"),
        script("orchestration_data"),
    ):
        database.execute(statements, user=OWNER)


for _state in ("supabase_new", "supabase_live"):

    @template(f"{_state}_opt_in", base=_state)
    def opt_in(database: Database) -> None:
        """That project since nothing new is granted by default."""
        database.execute(_project_script("opt_in"), user=database.superuser)


for _state in PROJECTS:

    @template(f"{_state}_upgraded", base=_state)
    def upgraded(database: Database) -> None:
        """That project after `upgrade head`."""
        admit_owner(database)
        migrations.upgrade(database.url(OWNER))
