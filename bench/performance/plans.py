"""What a statement reads, as PostgreSQL counts it, and how long it takes beside others."""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from bench.performance.readers import Asked


@dataclass(frozen=True)
class Reading:
    """Pages of 8 kB found in shared buffers or brought there, rows looked at, and by which nodes."""

    buffers: int
    rows: int
    nodes: tuple[str, ...]


# Whatever is estimated, one of these finds the plan that reads least.
_PLANNERS: tuple[Mapping[str, str], ...] = (
    {},
    {"enable_bitmapscan": "off"},
    {"enable_bitmapscan": "off", "enable_sort": "off"},
    {"enable_seqscan": "off"},
    # A row that is looked at in vain costs more than any other way.
    {"enable_bitmapscan": "off", "cpu_operator_cost": "1000"},
)


def least(connection: Connection, asked: Asked) -> Reading:
    """Give the plan that reads least, of those that PostgreSQL can be brought to."""
    found = []
    for settings in _PLANNERS:
        with connection.begin_nested() as savepoint:
            for setting, value in settings.items():
                connection.exec_driver_sql(f"SET LOCAL {setting} = {value}")
            found.append(explain(connection, asked))
            savepoint.rollback()
    return min(found, key=lambda reading: reading.buffers)


def explain(connection: Connection, asked: Asked) -> Reading:
    """Run a statement for its plan: twice, since what a connection does first it looks up in the catalogs."""
    for _ in range(2):
        [(found,)] = connection.exec_driver_sql(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + asked.statement, asked.parameters
        ).all()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    scans = [node for node in _nodes(plan) if "Relation Name" in node or "Index Name" in node]
    rows = sum(
        (node["Actual Rows"] + sum(node.get(f"Rows Removed by {why}", 0) for why in _IN_VAIN))
        * node["Actual Loops"]
        for node in scans
        if "Relation Name" in node
    )
    return Reading(
        _buffers(plan),
        round(rows),
        tuple(f"{node['Node Type']} {node.get('Index Name', node.get('Relation Name'))}" for node in scans),
    )


def _buffers(node: Mapping[str, Any]) -> int:
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


_IN_VAIN = ("Filter", "Index Recheck")


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def interleaved(runs: Mapping[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """Give the median of each in seconds; they take turns, so that a busy machine is busy for all."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in taken.items()}


def geometric_mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Give the exponent of growth: 0 where the second figure stays, 1 where it grows as the first does."""
    logarithms = [(math.log(x), math.log(y)) for x, y in points]
    return statistics.linear_regression(*zip(*logarithms, strict=True)).slope
