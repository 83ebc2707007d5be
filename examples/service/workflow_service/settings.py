"""What the environment says."""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    :param database_url: of a login that owns nothing and may become `authenticated` and `workflow_worker`.
    :param jwt_secret: the key by which the tokens of users are signed, HS256.
    :param pool_size: connections to the database, at most.
    """

    database_url: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    pool_size: int = 5

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            database_url=os.environ["SERVICE_DATABASE_URL"],
            jwt_secret=os.environ["SERVICE_JWT_SECRET"],
            pool_size=int(os.environ.get("SERVICE_POOL_SIZE", "5")),
        )
