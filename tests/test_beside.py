"""Beside a service's own Alembic: projects as `alembic init` makes them, changed as docs/beside.md says."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic import config as alembic_config
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, make_url

from tests.application.states import REVISIONS
from tests.catalog import Snapshot, snapshot
from tests.command import Ran, forked
from tests.databases import Database, template
from tests.online.test_script import run as run_script
from workflow_models import migrations
from workflow_models.online import MigrationError

Clone = Callable[[str], Database]

HEAD = REVISIONS[-1]
OURS = migrations.script_location() / "versions"
PAGE = (Path(__file__).parents[1] / "docs/beside.md").read_text()


def snippet(language: str, holding: str) -> str:
    """The one on the page that has this text in it."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in code]
    assert isinstance(found, str)
    return found


MODELS = snippet("python", "class Report")
ORGANIZATION = '''

from sqlalchemy import Text


class Organization(Base):
    """With the columns of the stand-in."""

    __tablename__ = "organizations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
'''
ADD_REPORTS = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001_add_reports", None, ("service",), {depends_on!r}


def upgrade():
    op.create_table(
        "reports",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("workflow_id", sa.Uuid, nullable=False),
    )
    {more}


def downgrade():
    op.drop_table("reports")
"""
ADD_KEY = 'op.create_foreign_key(None, "reports", "workflow_definitions", ["workflow_id"], ["id"])'

ENDING = "if context.is_offline_mode():\n    run_migrations_offline()\nelse:\n    run_migrations_online()\n"
RUN_ENV = snippet("py", "run_env(")


@dataclass(frozen=True)
class Service:
    """A project in a folder, with a database."""

    folder: Path
    database: Database

    def edit(self, file: str, *changes: tuple[str, str]) -> None:
        path = self.folder / file
        source = path.read_text()
        for old, new in changes:
            assert source.count(old) == 1, (old, source)
            source = source.replace(old, new)
        path.write_text(source)

    def add_revision(self, *, depends_on: str | None = None, more: str = "") -> None:
        text = ADD_REPORTS.format(depends_on=depends_on, more=more)
        (self.folder / "alembic/versions/0001_add_reports.py").write_text(text)

    def end_env_with(self, lines: str) -> None:
        self.edit("alembic/env.py", (ENDING, lines))

    def alembic(self, *arguments: str) -> Ran:
        return forked(_alembic_in, str(self.folder), list(arguments))

    def done(self, *arguments: str) -> Ran:
        ran = self.alembic(*arguments)
        assert ran.status == 0, ran.stdout + ran.stderr
        return ran

    def revisions(self, schema: str = "public") -> list[str]:
        found = self.database.execute(f"SELECT version_num FROM {schema}.alembic_version ORDER BY 1")
        return [revision for (revision,) in found]

    def schema(self) -> Snapshot:
        return snapshot(self.database.observer)


def _alembic_in(folder: str, arguments: list[str]) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)
    alembic_config.main(arguments, prog="alembic")


Projects = Callable[..., Service]
DRIVERS = [("generic", "psycopg"), ("async", "asyncpg"), ("async", "psycopg")]
each_stock = pytest.mark.parametrize(
    ("template", "driver"), DRIVERS, ids=[f"{template} {driver}" for template, driver in DRIVERS]
)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects as `alembic init` makes them, in a folder each, with a model and the metadata of it."""
    folder = tmp_path_factory.mktemp("stock")
    for kind in dict(DRIVERS):
        project = folder / kind
        project.mkdir()
        Service(project, None).done("init", "--template", kind, "alembic")  # type: ignore[arg-type]
        (project / "models.py").write_text(MODELS)
    return folder


@pytest.fixture
def project(stock: Path, tmp_path: Path) -> Projects:
    """Gives such a project for a database, by default with our chain as a second version location."""

    def project(
        database: Database, template: str = "generic", driver: str = "psycopg", *, guest: bool = True
    ) -> Service:
        made = Service(Path(shutil.copytree(stock / template, tmp_path / "service")), database)
        url = make_url(database.url(host="127.0.0.1")).set(drivername=f"postgresql+{driver}")
        locations = snippet("ini", "version_locations").replace("workflow_models:alembic/versions", str(OURS))
        made.edit(
            "alembic.ini",
            (
                "driver://user:pass@localhost/dbname",
                url.render_as_string(hide_password=False).replace("%", "%%"),
            ),
            ("path_separator = os\n", locations if guest else "path_separator = os\n"),
        )
        made.edit(
            "alembic/env.py",
            ("target_metadata = None\n", "import models\n\ntarget_metadata = models.Base.metadata\n"),
        )
        return made

    return project


REFUSAL = """\
error: these revisions cannot run under this env.py.
  Happened: it runs them by itself, so that nobody sees to locks, retries, a second migrator, or to what a \
downgrade would lose.
  Unchanged: all of this revision; the transaction under way is rolled back.
  Next:
    in {folder}/alembic/env.py, in place of everything from `if context.is_offline_mode():` on, write
    from workflow_models.migrations import run_env
    run_env(config.get_main_option("sqlalchemy.url"), target_metadata=target_metadata)
"""


IMPORT_FILTERS = (
    "import models\n",
    "import models\nfrom workflow_models import metadata as ours\n"
    + snippet("py", "include_name=").partition("\n\n")[0]
    + "\n",
)


def filtered(arguments: str) -> tuple[str, str]:
    """The change of an env.py that gives to what takes these arguments those of the page as well."""
    more = re.findall(r"include_\w+=service_include_\w+", snippet("py", "include_name="))
    return arguments, ", ".join([arguments, *more])


# A stock env.py.


@each_stock
def test_under_a_stock_env_our_first_revision_stops_before_its_first_change(
    empty: Database, project: Projects, template: str, driver: str
) -> None:
    service = project(empty, template, driver)
    service.add_revision()
    before = service.schema()

    ran = service.alembic("upgrade", "heads")

    assert (ran.status, service.schema()) == (1, before)
    assert ran.stderr.endswith(REFUSAL.format(folder=service.folder))


@pytest.mark.parametrize(
    ("change", "command"),
    [
        (("connectable.connect()", "connectable.begin()"), ["upgrade", "heads"]),
        (
            ("connection=connection,", "connection=connection, transaction_per_migration=True,"),
            ["upgrade", "heads"],
        ),
        (("", ""), ["upgrade", "heads", "--sql"]),
    ],
    ids=["a connection in a transaction", "a transaction for each revision", "a script"],
)
def test_under_an_env_that_runs_migrations_itself_nothing_of_ours_is_done(
    empty: Database, project: Projects, change: tuple[str, str], command: list[str]
) -> None:
    service = project(empty)
    if any(change):
        service.edit("alembic/env.py", change)

    ran = service.alembic(*command)

    assert ran.status == 1
    assert ran.stderr.endswith(REFUSAL.format(folder=service.folder))
    assert empty.execute("SELECT FROM pg_namespace WHERE nspname = 'workflow_private'") == []
    assert empty.execute("SELECT to_regclass('public.organizations')") == [(None,)]


def test_under_a_stock_env_a_downgrade_is_refused_too(upgraded: Database, project: Projects) -> None:
    service = project(upgraded)
    service.done("stamp", "heads")
    before = service.schema()

    ran = service.alembic("downgrade", "base")

    assert (ran.status, service.schema()) == (1, before)
    assert ran.stderr.endswith(REFUSAL.format(folder=service.folder))


def test_from_python_the_refusal_is_raised(empty: Database, project: Projects) -> None:
    service = project(empty)

    ran = forked(_upgrade_from_python, str(service.folder))

    assert ran.status == 1
    assert (
        "workflow_models.online.errors.MigrationError: " + REFUSAL.format(folder=service.folder) in ran.stderr
    )


def _upgrade_from_python(folder: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)
    command.upgrade(Config("alembic.ini"), "heads")


# One chain.


def test_the_commands_of_the_page_make_and_run_a_revision_that_depends_on_ours(
    upgraded: Database, project: Projects
) -> None:
    service = project(upgraded)
    service.end_env_with(RUN_ENV)
    shown = snippet("sh", "workflow_models@head")

    for line in shown.splitlines():
        service.done(*shlex.split(line)[1:])
    (made,) = (service.folder / "alembic/versions").glob("*_add_reports.py")
    service.done("upgrade", "heads")

    assert HEAD in made.read_text()
    assert service.revisions("workflow_private") == [HEAD]
    assert service.revisions() == [made.name.partition("_")[0]]


@each_stock
def test_with_the_lines_of_the_page_both_chains_are_upgraded_and_the_key_between_them_holds(
    clone: Clone, project: Projects, template: str, driver: str
) -> None:
    database = clone("adopted")
    service = project(database, template, driver)
    service.end_env_with(RUN_ENV)
    service.add_revision(depends_on=HEAD, more=ADD_KEY)

    service.done("upgrade", "heads")

    # Ours is implied by the one that depends on it.
    assert service.revisions() == ["0001_add_reports"]
    assert service.revisions("workflow_private") == [HEAD]
    migrations.require_head(database.engine())
    migrations.check(database.url())
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.execute("INSERT INTO reports (workflow_id) VALUES (gen_random_uuid())")


def test_the_database_of_a_connection_that_is_passed_in_is_the_one_that_is_migrated(
    clone: Clone, project: Projects
) -> None:
    configured, passed_in = clone("empty"), clone("empty")
    service = project(configured)
    service.end_env_with(RUN_ENV)

    ran = forked(_upgrade_passing_a_connection, str(service.folder), passed_in.url())

    assert ran.status == 0, ran.stderr
    migrations.require_head(passed_in.engine())
    assert configured.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def _upgrade_passing_a_connection(folder: str, url: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)
    config = Config("alembic.ini")
    with create_engine(url, poolclass=NullPool).begin() as config.attributes["connection"]:
        command.upgrade(config, "heads")


def test_with_the_lines_of_the_page_autogenerate_keeps_off_what_is_ours(
    empty: Database, project: Projects
) -> None:
    service = project(empty)
    service.end_env_with(RUN_ENV)
    service.add_revision(depends_on=HEAD, more=ADD_KEY)
    service.done("upgrade", "heads")

    assert service.done("check").stdout == "No new upgrade operations detected.\n"

    service.done("downgrade", "0001_add_reports@base")
    ran = service.alembic("check")
    assert ran.status == 1
    assert ran.stderr.endswith("  Next: run `alembic upgrade heads`, then this again.\n")


def test_our_branch_goes_up_and_down_by_its_label(empty: Database, project: Projects) -> None:
    service = project(empty)
    service.end_env_with(RUN_ENV)
    service.add_revision()
    service.done("upgrade", "service@head")
    before = service.schema()

    for target, at in (("workflow_models@head", HEAD), ("workflow_models@wf0003", REVISIONS[2])):
        service.done("upgrade" if at == HEAD else "downgrade", target)
        assert service.revisions() == ["0001_add_reports", at]
        assert service.revisions("workflow_private") == [at]

    service.done("downgrade", "workflow_models@base")
    assert service.revisions() == ["0001_add_reports"]
    assert service.revisions("workflow_private") == []
    assert service.schema()["columns"] == before["columns"]


def test_the_services_own_version_table_is_used(empty: Database, project: Projects) -> None:
    empty.execute("CREATE SCHEMA audit")
    service = project(empty)
    named = 'target_metadata=target_metadata, version_table="versions", version_table_schema="audit"'
    service.end_env_with(RUN_ENV.replace("target_metadata=target_metadata", named))

    service.done("upgrade", "heads")

    assert empty.execute("TABLE audit.versions") == [(HEAD,)]
    assert empty.execute("SELECT to_regclass('public.alembic_version')") == [(None,)]
    assert service.revisions("workflow_private") == [HEAD]


@pytest.mark.parametrize("label", ["workflow_models", "service"])
def test_a_downgrade_that_the_service_depends_on_is_refused_before_its_first_step(
    upgraded: Database, project: Projects, label: str
) -> None:
    service = project(upgraded)
    service.end_env_with(RUN_ENV)
    service.add_revision(depends_on=HEAD, more=ADD_KEY)
    service.done("upgrade", "heads")
    before = service.schema()

    ran = service.alembic("downgrade", f"{label}@base")

    if label == "service":
        assert (ran.status, service.revisions()) == (0, [HEAD])
    else:
        assert (ran.status, service.schema()) == (1, before)
        assert (
            "constraint reports_workflow_id_fkey on table reports depends on workflow_definitions"
            in ran.stderr
        )
        assert service.revisions() == ["0001_add_reports"]


def test_a_chain_that_was_upgraded_by_itself_becomes_a_guest(upgraded: Database, project: Projects) -> None:
    service = project(upgraded)
    service.end_env_with(RUN_ENV)
    before = service.schema()["columns"]

    ran = service.done("upgrade", "heads")

    assert service.revisions() == service.revisions("workflow_private") == [HEAD]
    assert before.items() <= service.schema()["columns"].items()
    assert f"+ {HEAD}" in ran.stderr  # though fileConfig() of a stock env.py disables loggers


def test_one_chain_as_a_script_ends_as_it_does_online(
    empty: Database, clone: Clone, project: Projects
) -> None:
    service = project(empty)
    service.end_env_with(RUN_ENV)
    service.add_revision(depends_on=HEAD, more=ADD_KEY)
    scripted = clone("empty")

    run_script(service.done("upgrade", "heads", "--sql").stdout, scripted)
    service.done("upgrade", "heads")

    assert Service(service.folder, scripted).schema() == service.schema()
    assert Service(service.folder, scripted).revisions("workflow_private") == [HEAD]


def test_x_options_of_the_service_are_its_own_and_ours_are_understood(
    empty: Database, project: Projects
) -> None:
    service = project(empty)
    service.end_env_with(RUN_ENV)

    service.done("-x", "tenant=acme", "-x", "lock-tries=3", "current")

    ran = service.alembic("-x", "lock-tries=none", "current")
    assert (ran.status, ran.stderr.splitlines()[1]) == (
        2,
        "  Happened: -x lock-tries=none is not a whole number above 0.",
    )


def test_a_role_whose_tables_go_to_another_schema_is_refused(empty: Database, project: Projects) -> None:
    empty.execute(f"CREATE SCHEMA app; ALTER DATABASE {empty.name} SET search_path = app, public")
    service = project(empty)
    service.end_env_with(RUN_ENV)
    service.add_revision()
    before = service.schema()

    ran = service.alembic("upgrade", "heads")

    assert (ran.status, service.schema()) == (1, before)
    assert ran.stderr == (
        "error: these revisions cannot run with another search_path.\n"
        "  Happened: this role creates its tables in app, and the revisions of workflow_models are for "
        "public.\n"
        "  Unchanged: nothing was done.\n"
        "  Next: let search_path begin with public for this role, and name the schema in the other models "
        "and revisions, and as version_table_schema; or keep the chains apart.\n"
    )


def test_what_asyncpg_has_in_its_url_does_not_stop_psycopg(upgraded: Database) -> None:
    url = make_url(upgraded.url(host="127.0.0.1")).set(
        drivername="postgresql+asyncpg",
        query={
            "ssl": "prefer",
            "timeout": "20",
            "command_timeout": "5",
            "prepared_statement_cache_size": "0",
        },
    )

    migrations.check(url)

    assert migrations.database_url(url.render_as_string(hide_password=False)).endswith(
        "?connect_timeout=20&sslmode=prefer"
    )


# Two chains.


@each_stock
def test_upgrade_within_a_stock_env_leaves_the_services_own_command_as_it_was(
    empty: Database, project: Projects, template: str, driver: str
) -> None:
    service = project(empty, template, driver, guest=False)
    service.end_env_with(snippet("py", "upgrade(config") + ENDING)
    service.add_revision(more=ADD_KEY)

    service.done("upgrade", "head")

    assert service.revisions() == ["0001_add_reports"]
    assert service.revisions("workflow_private") == [HEAD]
    assert service.done("current").stdout == "0001_add_reports (head)\n"


def test_upgrade_within_a_revision_leaves_its_operations_as_they_were(
    empty: Database, project: Projects
) -> None:
    service = project(empty, guest=False)
    call = f"from workflow_models.migrations import upgrade; upgrade({empty.url()!r})"
    service.add_revision(more=f"{call}; op.execute('CREATE TABLE more ()')")

    service.done("upgrade", "head")

    assert empty.execute("SELECT to_regclass('reports') IS NULL, to_regclass('more') IS NULL") == [
        (False, False)
    ]


def test_upgrade_behind_a_lock_of_the_services_own_transaction_says_who_holds_it(
    upgraded: Database,
) -> None:
    """It cannot be waited for: it is the caller's."""
    migrations.downgrade(upgraded.url(), "wf0005_index_by_organization")
    with upgraded.engine().connect() as connection:
        connection.exec_driver_sql("LOCK TABLE workflow_execution_logs")
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        with pytest.raises(MigrationError) as raised:
            migrations.upgrade(upgraded.url(), x={"lock-tries": "2"})

    assert f"pid {pid}" in raised.value.happened


# Autogenerate.


@template("organizations_of_its_own")
def organizations_of_its_own(database: Database) -> None:
    database.execute("CREATE TABLE organizations (id uuid PRIMARY KEY, name text NOT NULL)")
    migrations.upgrade(database.url())


@pytest.mark.parametrize(
    ("metadata", "filters"),
    [
        ("models.Base.metadata", "both"),
        ("models.Base.metadata", "include_name=service_include_name"),
        ("[models.Base.metadata, ours]", "both"),
    ],
)
@pytest.mark.parametrize("state", ["stand-ins", "organizations_of_its_own"])
def test_a_services_autogenerate_comes_out_empty(
    clone: Clone, project: Projects, state: str, metadata: str, filters: str
) -> None:
    database = clone("upgraded" if state == "stand-ins" else state)
    service = project(database, guest=False)
    if state != "stand-ins":
        (service.folder / "models.py").write_text(MODELS + ORGANIZATION)
    database.execute(
        """
        CREATE TABLE reports (
            id serial PRIMARY KEY, workflow_id uuid NOT NULL REFERENCES workflow_definitions (id)
        )
        """
    )
    arguments = "connection=connection, target_metadata=target_metadata"
    with_filters = filtered(arguments) if filters == "both" else (arguments, f"{arguments}, {filters}")
    service.edit("alembic/env.py", IMPORT_FILTERS, with_filters)
    service.edit("alembic/env.py", ("= models.Base.metadata", f"= {metadata}"))

    assert service.alembic("check").stdout == "No new upgrade operations detected.\n"
