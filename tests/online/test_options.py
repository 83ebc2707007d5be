"""`-x name=value`, else the environment, else the default."""

import pytest

from tests.databases import Database
from workflow_models.online import MigrationError, UsageError
from workflow_models.online.options import Options, read_options

VARIABLES = {
    "MIGRATION_LOCK_TIMEOUT_MS": "50",
    "MIGRATION_LOCK_TRIES": "5",
    "MIGRATION_MIGRATOR_WAIT_S": "7",
    "MIGRATION_ALLOW_DATA_LOSS": "true",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the shell's own."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def usage_error(x: dict[str, str]) -> str:
    with pytest.raises(UsageError) as refused:
        read_options(x)
    return str(refused.value)


def test_without_a_word_a_run_takes_the_defaults() -> None:
    assert read_options({}) == Options(
        lock_timeout_ms=400, lock_tries=30, migrator_wait_s=600, allow_data_loss=False
    )


def test_the_default_lock_timeout_is_below_postgresqls_default_deadlock_timeout(empty: Database) -> None:
    [(deadlock_timeout_ms,)] = empty.execute(
        "SELECT boot_val FROM pg_settings WHERE name = 'deadlock_timeout'"
    )

    assert Options().lock_timeout_ms < int(deadlock_timeout_ms)


def test_each_option_is_given_by_its_name() -> None:
    x = {"lock-timeout-ms": "50", "lock-tries": "5", "migrator-wait-s": "7", "allow-data-loss": "true"}

    assert read_options(x) == Options(50, 5, 7, True)


def test_each_option_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    assert read_options({}) == Options(50, 5, 7, True)


def test_the_command_line_is_preferred_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATION_ALLOW_DATA_LOSS", "true")
    monkeypatch.setenv("MIGRATION_LOCK_TRIES", "nonsense")

    given = read_options({"allow-data-loss": "FALSE", "lock-tries": "2"})

    assert given == Options(lock_tries=2, allow_data_loss=False)


def test_the_url_and_what_else_an_env_py_reads_are_left_to_it() -> None:
    assert read_options({"url": "postgresql:///app"}) == Options()
    assert read_options({"colour": "red"}, frozenset({"colour"})) == Options()


def test_a_usage_error_is_an_error_of_the_migration_with_exit_status_2() -> None:
    assert issubclass(UsageError, MigrationError)
    assert (UsageError.exit_code, MigrationError.exit_code) == (2, 1)


def test_a_name_that_nobody_reads_is_refused_with_those_that_there_are() -> None:
    assert usage_error({"lock-timeout": "400"}) == (
        "error: an option cannot be used.\n"
        "  Happened: -x lock-timeout is not an option.\n"
        "  Unchanged: the database was not connected to.\n"
        "  Next: use one of allow-data-loss, lock-timeout-ms, lock-tries, migrator-wait-s, url."
    )


@pytest.mark.parametrize("value", ["", "0", "-1", "2.5", "5s", "many", "²", "1e3"])
def test_a_number_is_a_whole_one_above_zero(value: str) -> None:
    assert usage_error({"lock-tries": value}) == (
        "error: an option cannot be used.\n"
        f"  Happened: -x lock-tries={value} is not a whole number above 0.\n"
        "  Unchanged: the database was not connected to.\n"
        "  Next: give it one, without a unit."
    )


@pytest.mark.parametrize("value", ["", "1", "yes", "ja"])
def test_leave_to_lose_data_is_true_or_false(value: str) -> None:
    assert usage_error({"allow-data-loss": value}) == (
        "error: an option cannot be used.\n"
        f"  Happened: -x allow-data-loss={value} is neither true nor false.\n"
        "  Unchanged: the database was not connected to.\n"
        "  Next: give it one of the two."
    )


def test_a_wrong_variable_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATION_MIGRATOR_WAIT_S", "10min")

    assert usage_error({}) == (
        "error: an option cannot be used.\n"
        "  Happened: MIGRATION_MIGRATOR_WAIT_S=10min is not a whole number above 0.\n"
        "  Unchanged: the database was not connected to.\n"
        "  Next: give it one, without a unit."
    )
