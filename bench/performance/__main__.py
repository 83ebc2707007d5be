"""What row-level security costs: the application's readers and writers, ours beside the limit and the seed.

`make bench` builds each variant with the same rows, asks the same questions, and writes `performance.json` in
`bench/results/`, the plots beside `docs/performance.md`, and that page's tables. With another number of logs,
as `make bench LOGS=100000`, all of that goes to a folder of its own in `bench/results/`.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench import tenancy
from bench.performance import changes, python_side, report, writers
from bench.performance.plans import explain, interleaved, least
from bench.performance.readers import CALLERS, READERS, Asked, Asking, is_asked, subjects
from bench.performance.variants import (
    BARE,
    LIMIT,
    NESTED,
    OURS,
    SEED,
    SUPER_ADMIN,
    SUPER_ADMIN_ROLE,
    Variant,
    build,
    drop,
)
from tests import server as servers

RESULTS = Path(__file__).parents[1] / "results"
# What the page shows; another size is for a look, and has a folder of its own there.
LOGS = 1_000_000
# Of those that are compared, each has so many turns.
ROUNDS = 5


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=LOGS)
    parser.add_argument("--runs", type=int, default=4_000, help="runs recorded for each figure about writing")
    parser.add_argument("--times", type=int, default=9, help="how often each thing is timed")
    parser.add_argument("--results", type=Path, help="default: of the page's size, those of the page")
    parser.add_argument("--docs", type=Path, help="where the page is written, likewise")
    parser.add_argument("--only-report", action="store_true", help="write tables and plots again")
    arguments = parser.parse_args()
    if arguments.logs == LOGS:
        folder, docs = RESULTS, report.DOCS
    else:
        folder = docs = RESULTS / f"{arguments.logs}-logs"
    arguments.results = arguments.results or folder / "performance.json"
    arguments.docs = arguments.docs or docs
    arguments.docs.mkdir(parents=True, exist_ok=True)
    if not (arguments.docs / report.PAGE).exists():
        shutil.copy(report.DOCS / report.PAGE, arguments.docs)
    if not arguments.only_report:
        with server() as (place, psql):
            found = measure(place, psql, arguments.logs, arguments.runs, arguments.times)
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(json.dumps(found, indent=1) + "\n")
    print(report.write(json.loads(arguments.results.read_text()), arguments.docs))
    print(f"all tables and plots: {arguments.docs / report.PAGE}")


@contextmanager
def server() -> Iterator[tuple[servers.Server, str | None]]:
    """A cluster of our own, on disk, where commits are flushed; and psql, if there is one."""
    binaries = servers.chosen()[0].binaries
    if binaries is None:
        raise SystemExit("error: the bench makes a cluster of its own: unset TEST_DATABASE_URL.")
    with servers.cluster(binaries, Path(tempfile.gettempdir())) as place:
        servers.make_roles(place)
        yield place, shutil.which("psql", path=f"{binaries}{os.pathsep}{os.environ['PATH']}")


def sizes(largest: int, count: int = 4) -> list[int]:
    """Give sizes up to the largest, each about a third of the next."""
    return sorted(round(largest / 10 ** (step / 2)) for step in range(count))


def measure(server: servers.Server, psql: str | None, logs: int, runs: int, times: int) -> dict[str, Any]:
    """Measure everything; buffers are pages of 8 kB."""
    found: dict[str, Any] = {"logs": logs, "growth": []}
    for size in sizes(logs)[:-1]:
        limit, ours = build(server, LIMIT, size), build(server, OURS, size)
        found["growth"] += [{"logs": size, **each} for each in grown(limit, ours)]
        drop(limit)
        drop(ours)
    variants = {name: build(server, name, logs) for name in (LIMIT, NESTED, SEED, OURS)}
    with variants[OURS].connect() as connection:
        [found["server"]] = connection.execute("SHOW server_version").fetchone() or [None]
    found["reads"], questions = reads(variants, times)
    found["growth"] += [
        {
            "logs": logs, "caller": each["caller"], "reader": each["reader"], "rows": each["limit"]["rows"],
            "limit": each["limit"]["buffers"], "ours": each[report.TENANT]["buffers"],
        }
        for each in found["reads"]
    ]  # fmt: skip
    found["changes"] = {
        kind: {name: asked_again(variants[OURS], each, questions) for name, each in listed.items()}
        for kind, listed in (("dropped", changes.DROPPED), ("alternatives", changes.ALTERNATIVES))
    }
    found["changes"]["alternatives"][changes.EACH_LOOKS_UP] = asked_again(
        variants[OURS], (), questions, knowing=False
    )
    for name, instead in changes.STATEMENTS.items():
        restated = changes.restated(questions, instead)
        found["changes"]["alternatives"][name] = asked_again(variants[OURS], (), restated)
    found["upkeep"] = changes.upkeep(variants[OURS])
    found["indexes"] = {name: writers.index_sizes(each) for name, each in variants.items()}
    for name in (LIMIT, NESTED):
        drop(variants.pop(name))
    variants[BARE] = build(server, BARE, logs)
    found["bulk"] = python_side.bulk_insert(variants[OURS], min(10_000, logs), min(3, times))
    with writers.flushed(variants[OURS]):
        apart = writers.take_apart(variants[OURS], variants[BARE], runs, ROUNDS)
        found["parts"] = {name: asdict(cost) for name, cost in apart.items()}
        found["writes"] = written(variants, runs)
    for variant in variants.values():
        drop(variant)
    found["sessions"] = tenancy.measure(server, 100 * times)
    found["imports"] = python_side.imports(2 * times)
    found["upgrade"] = python_side.upgrade_empty(server, psql, min(3, times))
    return found


def grown(limit: Variant, ours: Variant) -> Iterator[dict[str, Any]]:
    """Give the buffers of the limit and of tenant sessions."""
    askings = [Asking(limit), Asking(ours, tenant=True)]
    about = subjects(askings[0].engine)
    for caller in CALLERS:
        for name in filter(partial(is_asked, caller), READERS):
            readings = []
            for asking, look in zip(askings, (least, explain), strict=True):
                with asking.session(caller) as session:
                    asked = asking.ask(session, caller, about[caller], name)
                    readings.append(look(session.connection(), asked))
            yield {
                "caller": str(caller), "reader": name, "rows": readings[0].rows,
                "limit": readings[0].buffers, "ours": readings[1].buffers,
            }  # fmt: skip
    for asking in askings:
        asking.engine.dispose()


def reads(variants: dict[str, Variant], times: int) -> tuple[list[dict[str, Any]], list[changes.Question]]:
    """Let every caller ask every reader in every variant."""
    ours = variants[OURS]
    askings = [
        *map(Asking, variants.values()),
        Asking(ours, tenant=True),
        Asking(ours, tenant=True, super_admin_role=SUPER_ADMIN_ROLE),
    ]
    about = subjects(askings[0].engine)
    found, questions = [], []
    for caller in CALLERS:
        for name in filter(partial(is_asked, caller), READERS):
            row: dict[str, Any] = {"caller": str(caller), "reader": name}
            is_user = caller.role == "authenticated" and caller.user != SUPER_ADMIN
            with ExitStack() as stack:
                runs = {}
                for asking in askings:
                    if not asking.can(caller):
                        continue
                    session = stack.enter_context(asking.session(caller))
                    asked = asking.ask(session, caller, about[caller], name)
                    connection = session.connection()
                    look = least if asking.variant.name == LIMIT else explain
                    row[asking.name] = asdict(look(connection, asked))
                    runs[asking.name] = partial(_fetch, connection, asked)
                    if asking.name == report.TENANT or (is_user and asking.name == OURS):
                        questions.append(changes.Question(caller, name, asked, bare=not asking.tenant))
                for which, seconds in interleaved(runs, times).items():
                    row[which]["seconds"] = seconds
            found.append(row)
    for asking in askings:
        asking.engine.dispose()
    return found, questions


def _fetch(connection: Any, asked: Asked) -> None:
    connection.exec_driver_sql(asked.statement, asked.parameters).all()


def asked_again(
    ours: Variant, statements: Sequence[str], questions: list[changes.Question], *, knowing: bool = True
) -> list[dict[str, Any]]:
    """Give the buffers of each question after a change."""
    readings = changes.read(ours, statements, questions, knowing=knowing)
    return [
        {"caller": str(question), "reader": question.reader, "buffers": reading.buffers}
        for question, reading in zip(questions, readings, strict=True)
    ]


def written(variants: dict[str, Variant], runs: int) -> dict[str, Any]:
    """Record runs in each variant; move a workflow; then record runs in ours as it might be."""
    # Once for nothing: the room in old pages, where rows of a live table seldom fit, is used up.
    for name, variant in variants.items():
        writers.record(variant, runs, writers.ROLES[name])
    ours, worker = variants[OURS], writers.ROLES[OURS]
    compared = {
        f"{name}{how}": (variant, writers.ROLES[name], commit)
        for how, commit in (("", "on"), (report.UNFLUSHED, "off"))
        for name, variant in variants.items()
    }
    compared["ours, as service_role"] = ours, "service_role", "on"
    found: dict[str, Any] = {
        name: asdict(each) for name, each in writers.record_in_turn(compared, runs, ROUNDS).items()
    }
    for name, by_hand in ((OURS, False), (BARE, True)):
        logs, cost = writers.move(variants[name], by_hand)
        found[f"move, {name}"] = {"logs": logs, **asdict(cost)}
    for name, statements in writers.DESIGNS.items():
        writers.run_sql(ours, statements)
        found[name] = asdict(writers.record(ours, runs, worker))
    return found


if __name__ == "__main__":
    main()
