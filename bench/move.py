"""How long moving a workflow to another organization takes, by how many logs it has.

`python -m bench.move 1000 10000 100000` prints a row for each number of logs. All logs move in one
transaction, the definition's own; the keys, triggers and indexes are those of the head revision.
"""

import argparse
import statistics
import time

import psycopg

from bench.upgrade import OWNER, Place
from tests.server import chosen, make_roles, serve
from workflow_models import migrations

MOVES = 5


def add_workflow(place: Place, logs: int) -> None:
    with place.connect() as connection:
        connection.execute(
            """
            WITH definition AS (
                INSERT INTO workflow_definitions (
                    organization_id, name, natural_language_prompt, workflow_json, trigger_type)
                SELECT id, %s, 'Do it', '{}', 'manual' FROM organizations ORDER BY name LIMIT 1
                RETURNING id
            )
            INSERT INTO workflow_execution_logs (workflow_id, status, trigger_data, execution_result)
            SELECT id, 'success', '{"source": "bench"}', '{"steps": [1, 2, 3], "message": "done"}'
            FROM definition CROSS JOIN generate_series(1, %s)
            """,
            [f"{logs} logs", logs],
        )


def seconds_of_moves(place: Place, logs: int) -> list[float]:
    taken = []
    with place.connect() as connection:
        for _ in range(MOVES):
            started = time.perf_counter()
            connection.execute(
                """
                UPDATE workflow_definitions AS definition SET organization_id = organizations.id
                FROM organizations
                WHERE definition.name = %s AND organizations.id <> definition.organization_id
                """,
                [f"{logs} logs"],
            )
            taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=int, nargs="+", help="how many logs a workflow has")
    sizes = parser.parse_args().logs
    with serve(chosen()[0]) as server:
        make_roles(server)
        with psycopg.connect(
            host=server.host, port=server.port, user=server.user, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE moves OWNER {OWNER}")
        place = Place(server.host, server.port, "moves")
        migrations.upgrade(place.url())
        with place.connect() as connection:
            connection.execute("INSERT INTO organizations (name) VALUES ('From'), ('To')")
        for logs in sizes:
            add_workflow(place, logs)
        with place.connect() as connection:
            connection.execute("VACUUM ANALYZE workflow_execution_logs, workflow_definitions")
        print("| logs | median | worst |\n|---|---|---|")
        for logs in sizes:
            taken = seconds_of_moves(place, logs)
            print(f"| {logs:,} | {statistics.median(taken):.2f} s | {max(taken):.2f} s |")


if __name__ == "__main__":
    main()
