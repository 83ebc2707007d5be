"""What the environment has to say, and what is said where it does not."""

import pytest

from workflow_service.app import create_app
from workflow_service.settings import Settings

DATABASE_URL = "postgresql://app_service@localhost/app"
LONG_ENOUGH = "é" * 16


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_DATABASE_URL", DATABASE_URL)
    monkeypatch.delenv("SERVICE_JWT_SECRET", raising=False)
    monkeypatch.delenv("SERVICE_POOL_SIZE", raising=False)


def refusal() -> str:
    """What a service that does not start prints; `sys.exit(text)` prints the text, and ends with 1."""
    with pytest.raises(SystemExit) as ended:
        create_app()
    return str(ended.value.code)


@pytest.mark.parametrize(
    ("secret", "found"),
    [
        (None, "is not set"),
        ("", "is not set"),
        ("…", "has 3 bytes"),
        (LONG_ENOUGH[1:], "has 30 bytes"),
    ],
    ids=["unset", "empty", "as written somewhere", "a bit too short"],
)
def test_a_secret_that_can_be_guessed_is_refused(
    monkeypatch: pytest.MonkeyPatch, secret: str | None, found: str
) -> None:
    if secret is not None:
        monkeypatch.setenv("SERVICE_JWT_SECRET", secret)

    assert refusal() == (
        f"error: SERVICE_JWT_SECRET {found}; it has to have 32 bytes or more.\n"
        "  Next: set it to what `python -c 'import secrets; print(secrets.token_hex())'` prints."
    )


def test_a_missing_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICE_DATABASE_URL")

    assert refusal() == (
        "error: SERVICE_DATABASE_URL is not set.\n"
        "  Next: set it to the URL of the service's own login, as README.md makes it."
    )


def test_a_secret_of_32_bytes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_JWT_SECRET", LONG_ENOUGH)

    assert Settings.from_environment() == Settings(DATABASE_URL, LONG_ENOUGH)
