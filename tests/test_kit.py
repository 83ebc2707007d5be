"""The kit itself: what other tests take for granted."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.databases import Database, template
from tests.server import PASSWORD, Server, chosen

built: list[str] = []


@template("kit")
def kit(database: Database) -> None:
    built.append(database.url())
    database.execute("CREATE TABLE things (id int); INSERT INTO things VALUES (1)")


@template("kit_more", base="kit")
def kit_more(database: Database) -> None:
    database.execute("INSERT INTO things VALUES (2)")


@template("broken")
def broken(database: Database) -> None:
    database.execute("SELECT 1 / 0")


def test_the_owner_is_neither_superuser_nor_above_row_level_security(empty: Database) -> None:
    role = "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    assert empty.execute(role) == [(False, False, True)]


def test_the_owner_owns_the_database_and_may_create_in_public(empty: Database) -> None:
    empty.execute("CREATE TABLE public.things (id int); GRANT SELECT ON things TO anon; CREATE SCHEMA other")

    assert empty.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'things'") == [("app_owner",)]


def test_what_one_clone_changes_no_other_sees(clone: Callable[[str], Database]) -> None:
    one, other = clone("kit"), clone("kit")

    one.execute("INSERT INTO things VALUES (9)")

    assert one.execute("SELECT id FROM things ORDER BY id") == [(1,), (9,)]
    assert other.execute("SELECT id FROM things") == [(1,)]


def test_a_template_is_built_once_also_as_the_base_of_another(clone: Callable[[str], Database]) -> None:
    clone("kit")

    assert clone("kit_more").execute("SELECT id FROM things ORDER BY id") == [(1,), (2,)]
    # On each server.
    assert len(built) == len(set(built)) > 0


def test_a_template_that_fails_leaves_no_database(clone: Callable[[str], Database], empty: Database) -> None:
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            clone("broken")

    assert empty.execute("SELECT datname FROM pg_database WHERE datname LIKE '%broken%'") == []


def test_an_unknown_template_is_named(clone: Callable[[str], Database]) -> None:
    with pytest.raises(LookupError, match="no template 'adoptd'"):
        clone("adoptd")


def test_a_name_cannot_stand_for_two_templates() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        template("kit")(kit)


def test_a_request_has_its_role_and_claims_and_leaves_nothing(empty: Database) -> None:
    empty.execute("CREATE TABLE things (id int); GRANT INSERT ON things TO authenticated")
    with empty.as_role("authenticated", {"request.jwt.claim.sub": "ann"}) as request:
        asked = request.execute("SELECT current_user::text, current_setting('request.jwt.claim.sub')")
        assert asked.fetchall() == [("authenticated", "ann")]
        request.execute("INSERT INTO things VALUES (1)")

    assert empty.execute("SELECT id FROM things") == []


def test_a_request_may_end_in_an_error(empty: Database) -> None:
    empty.execute("CREATE TABLE things (id int)")

    with pytest.raises(psycopg.errors.InsufficientPrivilege), empty.as_role("anon") as request:
        request.execute("SELECT FROM things")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "workflow_worker"])
def test_authenticator_has_no_right_of_the_roles_that_it_may_become(empty: Database, role: str) -> None:
    empty.execute(f"CREATE TABLE things (id int); GRANT SELECT ON things TO {role}")

    with empty.as_role(role) as request:
        request.execute("SELECT FROM things")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        empty.execute("SELECT FROM things", user="authenticator")


def test_passwords_count_over_tcp(empty: Database, server: Server) -> None:
    if not server.own:
        pytest.skip("how a running server checks passwords is its own affair")
    create_engine(empty.url(host="127.0.0.1"), poolclass=NullPool).connect().close()

    wrong = create_engine(empty.url(host="127.0.0.1", password="wrong"), poolclass=NullPool)
    with pytest.raises(OperationalError, match="password authentication failed"):
        wrong.connect()


def test_the_password_needs_quoting_in_a_url(empty: Database) -> None:
    assert PASSWORD not in empty.url(host="127.0.0.1")


def test_an_engine_reaches_the_database(empty: Database) -> None:
    with empty.engine().connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == empty.name


def test_a_new_cluster_has_no_role_of_the_application(empty_on_new_cluster: Database) -> None:
    roles = empty_on_new_cluster.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")

    assert roles == [("app_owner",), ("postgres",)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_cluster_goes_with_the_process_that_made_it(signum: signal.Signals) -> None:
    binaries = chosen()[0].binaries
    if binaries is None:
        pytest.skip("makes no cluster")
    script = """
import signal, sys, time
from pathlib import Path
from tests.server import cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # who started us may ignore it
with cluster(Path(sys.argv[1])) as server:
    print(server.host, server.port, flush=True)
    while True:
        time.sleep(0.1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(binaries)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        host, port = process.stdout.readline().split()
        deadline = time.monotonic() + 30
        # Again where it was lost: Python may be between looking for a signal and waiting.
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signum)
            time.sleep(0.5)
        ended = process.poll() is not None
        process.kill()

    assert ended

    deadline = time.monotonic() + 30
    while Path(host).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(host).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))
