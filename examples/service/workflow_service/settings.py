"""What the environment says."""

import os
import sys
from dataclasses import dataclass, field

# As long as what HS256 makes of it: RFC 7518, 3.2.
SECRET_BYTES = 32


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    :param database_url: of a login that owns nothing and may become `authenticated` and `workflow_worker`.
    :param jwt_secret: the key by which the tokens of users are signed, HS256; `SECRET_BYTES` or more.
    :param pool_size: connections to the database, at most.
    """

    database_url: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    pool_size: int = 5

    @classmethod
    def from_environment(cls) -> "Settings":
        """Give those of the environment; ends the process with a message where they are missing or unfit."""
        database_url = os.environ.get("SERVICE_DATABASE_URL", "")
        if not database_url:
            sys.exit(
                "error: SERVICE_DATABASE_URL is not set.\n"
                "  Next: set it to the URL of the service's own login, as README.md makes it."
            )
        jwt_secret = os.environ.get("SERVICE_JWT_SECRET", "")
        if len(jwt_secret.encode()) < SECRET_BYTES:
            found = f"has {len(jwt_secret.encode())} bytes" if jwt_secret else "is not set"
            sys.exit(
                f"error: SERVICE_JWT_SECRET {found}; it has to have {SECRET_BYTES} bytes or more.\n"
                "  Next: set it to what `python -c 'import secrets; print(secrets.token_hex())'` prints."
            )
        return cls(database_url, jwt_secret, pool_size=int(os.environ.get("SERVICE_POOL_SIZE", "5")))
