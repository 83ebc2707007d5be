"""Several migrators at once: one works, the others wait and find the work done, and nobody deadlocks."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.command import alembic
from tests.databases import Database

# `MIGRATORS_ROUNDS=20 make test ARGS=tests/online/test_migrators.py` looks for what is rare.
ROUNDS = int(os.environ.get("MIGRATORS_ROUNDS", "1"))
NUMBERS = range(2, 9, 1 if ROUNDS > 1 else 3)
HEAD = "wf0006_check_organization"


@pytest.mark.timeout(60 * ROUNDS)
@pytest.mark.parametrize("migrators", NUMBERS)
def test_of_several_migrators_one_works_and_the_others_find_nothing_to_do(
    clone: Callable[[str], Database], migrators: int
) -> None:
    for _ in range(ROUNDS):
        database = clone("half_fixed")

        with ThreadPoolExecutor(migrators) as threads:
            ran = list(
                threads.map(
                    lambda url: alembic("upgrade", "head", DATABASE_URL=url), [database.url()] * migrators
                )
            )

        assert [(each.status, each.stdout) for each in ran] == [(0, "")] * migrators
        assert sum("+ wf0003" in each.stderr for each in ran) == 1
        found_it_done = f"nothing to do: the database is at {HEAD}\n"
        assert sum(found_it_done in each.stderr for each in ran) == migrators - 1
        assert database.execute("SELECT FROM pg_index WHERE NOT indisvalid") == []
        assert database.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ) == [(0,)]
