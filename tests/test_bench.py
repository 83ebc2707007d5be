"""`make bench` measures, and its page shows what it measured."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

from bench.performance import report
from bench.performance.__main__ import RESULTS, grown
from bench.performance.plans import slope
from bench.performance.readers import CALLERS, READERS, is_asked
from bench.performance.variants import LIMIT, OURS, Variant, build, drop
from bench.performance.writers import DESIGNS, ROLES, record, run_sql
from tests.application import ACME_SUPER
from tests.databases import Database
from tests.server import Server
from workflow_models import migrations
from workflow_models.tenancy import TenantSessionmaker


@pytest.fixture(scope="module")
def variants(server: Server) -> Iterator[dict[str, Variant]]:
    """A few logs: the figures mean nothing."""
    built = {name: build(server, name, 300) for name in (LIMIT, OURS)}
    yield built
    for variant in built.values():
        drop(variant)


def test_every_caller_asks_every_reader_in_both_ways(variants: dict[str, Variant]) -> None:
    found = list(grown(variants[LIMIT], variants[OURS]))

    asked = [(str(caller), name) for caller in CALLERS for name in READERS if is_asked(caller, name)]
    assert [(each["caller"], each["reader"]) for each in found] == asked
    assert all(each["limit"] > 0 and each["ours"] > 0 for each in found)


def test_an_end_of_a_run_touches_indexes_only_where_they_have_what_it_changes(
    variants: dict[str, Variant],
) -> None:
    ours = variants[OURS]

    assert record(ours, 100, ROLES[OURS]).hot == 0

    for statements in DESIGNS.values():
        run_sql(ours, statements)

    assert record(ours, 100, ROLES[OURS]).hot > 0.5


def test_super_admins_may_have_a_role_of_their_own_that_a_check_knows(
    clone: Callable[[str], Database], caplog: pytest.LogCaptureFixture
) -> None:
    database = clone("adopted_upgraded")
    revision, ini, sessions = re.findall(
        r"```(?:py|ini)\n(.*?)```", (report.DOCS / "performance.md").read_text(), re.DOTALL
    )
    allowed = ConfigParser()
    allowed.read_string(ini)
    run = partial(database.execute, user=database.superuser)
    namespace: dict[str, Any] = {"op": SimpleNamespace(execute=run)}
    exec(revision, namespace)

    namespace["upgrade"]()
    try:
        extra = allowed["alembic"]["allow_extra"].split("\n")[1:]
        assert migrations.differences(database.url()) != []
        assert "policy super_admins" in caplog.text
        caplog.clear()
        assert migrations.differences(database.url(), allow_extra=extra) == []
        assert "policy super_admins" not in caplog.text
        engine = create_engine(database.url("authenticator"), poolclass=NullPool)
        asking = {
            "TenantSessionmaker": TenantSessionmaker,
            "engine": engine,
            "super_admin_id": ACME_SUPER.id,
            "text": text,
            "statement": "SELECT current_user, count(*) FROM workflow_execution_logs",
        }
        exec(sessions.replace("...", "found = session.execute(text(statement)).one()"), asking)
        assert asking["found"] == ("workflow_super_admin", 320)
    finally:
        namespace["downgrade"]()
    assert migrations.differences(database.url()) == []


def test_the_page_shows_the_results(tmp_path: Path) -> None:
    page = Path(shutil.copy(report.DOCS / "performance.md", tmp_path))
    before = page.read_text()

    report.write(json.loads((RESULTS / "performance.json").read_text()), tmp_path)

    assert page.read_text() == before


def test_growth_is_told_from_its_absence() -> None:
    assert slope([(10, 5), (100, 5), (1000, 5)]) == 0
    assert slope([(10, 20), (100, 200), (1000, 2000)]) == pytest.approx(1)
