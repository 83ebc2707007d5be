"""The figures as Markdown tables in `docs/performance.md`, and as plots beside it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import tenancy
from bench.performance.changes import UPKEEP
from bench.performance.plans import geometric_mean, slope
from bench.performance.readers import PAGES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "performance.md"
TENANT = "ours, tenant session"
OWN_ROLE = f"{TENANT}, role of their own"
VARIANTS = {
    "limit": "limit",
    "nested": "nested policy",
    "seed": "the seed",
    "ours": "ours, bare",
    TENANT: "ours, session",
    OWN_ROLE: "role of their own",
}
UNFLUSHED = ", commits not waited for"
# Pages by which an answer may exceed the limit, where that is small.
ALLOWANCE = 8

Found = Mapping[str, Any]


def write(found: Found, docs: Path) -> str:
    """Put each table between its markers, draw the plots, and give the goals.

    :raises ValueError: for a page without one of the markers.
    """
    page = docs / PAGE
    text = page.read_text()
    for name, table in TABLES.items():
        marked = re.compile(f"(<!-- bench: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = f"{table(found)}\n"
        text, replaced = marked.subn(lambda match, body=body: match[1] + body + match[2], text)  # type: ignore[misc]
        if not replaced:
            raise ValueError(f"{page} has no place for the table {name!r}")
    page.write_text(text)
    plot_readers(found, docs / "performance-readers.svg")
    plot_growth(found, docs / "performance-growth.svg")
    return goals(found)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _reads(found: Found, who: str, variant: str) -> list[tuple[float, float]]:
    """Give buffers of a variant and of the limit, for callers whose name begins so."""
    return [
        (each[variant]["buffers"], each["limit"]["buffers"])
        for each in found["reads"]
        if each["caller"].startswith(who) and variant in each
    ]


def _mean(pairs: Iterable[tuple[float, float]]) -> float:
    return geometric_mean([ours / limit for ours, limit in pairs])


def _outliers(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Give those that are above 1.5 times the limit and more than 8 buffers above it."""
    return [(ours, limit) for ours, limit in pairs if ours > 1.5 * limit and ours > limit + ALLOWANCE]


def goals(found: Found) -> str:
    """Give each goal with what was measured, and whether that meets it; where none was set, nothing."""
    rows: list[tuple[str, str, bool | None]] = []
    for who, variant, how, bound in (
        ("user", TENANT, "through a tenant session", 1.1),
        ("worker", TENANT, "through a tenant session", 1.1),
        ("super admin", OWN_ROLE, "through a tenant session, in a role of their own", 1.1),
        ("super admin", TENANT, "through a tenant session, as any user", None),
        ("worker", "ours", "bare", 1.2),
        ("user", "ours", "bare", None),
    ):
        pairs = _reads(found, who, variant)
        mean, outliers = _mean(pairs), _outliers(pairs)
        goal = "the limit's buffers" if bound is None else f"at most {bound} times the limit's buffers"
        rows.append((f"{who} {how}: {goal}", f"{mean:.2f}", None if bound is None else mean <= bound))
        if variant != "ours":
            worst = max(ours / limit for ours, limit in outliers) if outliers else None
            rows.append(
                (
                    f"{who} {how}: none above 1.5 times, or {ALLOWANCE} more",
                    f"{len(outliers)} of {len(pairs)}" + (f", worst {worst:.1f}" if worst else ""),
                    None if bound is None else not outliers,
                )
            )
    writes = found["writes"]
    for what, unit in (("wal_bytes", "WAL"), ("cpu_us", "processor time")):
        ratio, unflushed = (
            writes[f"ours{how}"]["insert"][what] / writes[f"bare{how}"]["insert"][what]
            for how in ("", UNFLUSHED)
        )
        measured = f"{ratio:.2f}" + (
            f"; {unflushed:.2f} where commits are not waited for" if what == "cpu_us" else ""
        )
        rows.append((f"insert: at most 1.5 times a bare table's {unit}", measured, ratio <= 1.5))
    ours = writes["ours"]
    rows.append(("end of a run: at least 90 % HOT", f"{ours['hot']:.1%}", ours["hot"] >= 0.9))
    worst_slope = max(slope(points) for points in _full_pages(found).values())
    rows.append(
        ("pages do not grow with the table (exponent at most 0.1)", f"{worst_slope:.2f}", worst_slope <= 0.1)
    )
    imports = found["imports"]
    ratio = imports["workflow_models"] / imports["sqlalchemy.orm"]
    rows.append(("import: at most 1.1 times sqlalchemy.orm", f"{ratio:.2f}", ratio <= 1.1))
    met = {True: "yes", False: "**no**", None: ""}
    return table(("goal", "measured", "met"), [(*row[:2], met[row[2]]) for row in rows])


def buffers(found: Found) -> str:
    return table(
        ("buffers", *VARIANTS.values(), "session / limit", "rows read"),
        [
            (
                f"{each['caller']}: {each['reader']}",
                *(f"{each[name]['buffers']:,}" if name in each else "" for name in VARIANTS),
                f"{each[TENANT]['buffers'] / each['limit']['buffers']:.2f}",
                f"{each[TENANT]['rows']:,}",
            )
            for each in found["reads"]
        ],
    )


def times(found: Found) -> str:
    rows = []
    for who in ("user", "worker", "super admin"):
        for reader in dict.fromkeys(each["reader"] for each in found["reads"]):
            cells = []
            for name in list(VARIANTS)[1:]:
                ratios = [
                    each[name]["seconds"] / each["limit"]["seconds"]
                    for each in found["reads"]
                    if each["caller"].startswith(who) and each["reader"] == reader and name in each
                ]
                cells.append(f"{geometric_mean(ratios):.2f}" if ratios else "")
            rows.append((f"{who}: {reader}", *cells))
    return table(("time / limit's", *list(VARIANTS.values())[1:]), rows)


def claim(found: Found) -> str:
    """Say how much less than the nested policy the seed's takes, and ours."""
    rows = []
    for size in ("small", "middle", "large"):
        of_users = [each for each in found["reads"] if each["caller"] == f"user, {size}"]
        cells = []
        for variant in ("seed", "ours", TENANT):
            for what in ("buffers", "seconds"):
                saved = 1 - geometric_mean([each[variant][what] / each["nested"][what] for each in of_users])
                cells.append(f"{saved:.0%}")
        rows.append((f"user of a {size} organization", *cells))
    head = [f"{VARIANTS[v]}: {what}" for v in ("seed", "ours", TENANT) for what in ("buffers", "time")]
    return table(("less than the nested policy", *head), rows)


_GROUPS = ("user", "worker", "super admin", "bare user")


def _changed(found: Found, kind: str) -> str:
    limits, now = {}, {}
    for each in found["reads"]:
        for prefix, variant in (("", TENANT), ("bare ", "ours")):
            key = f"{prefix}{each['caller']}", each["reader"]
            limits[key] = each["limit"]["buffers"]
            now[key] = each.get(variant, each["limit"])["buffers"]
    rows = []
    for name, readings in found["changes"][kind].items():
        after = {(each["caller"], each["reader"]): each["buffers"] for each in readings}
        cells = [
            f"{geometric_mean(ratios):.2f}" if ratios else ""
            for who in _GROUPS
            for ratios in [[after[k] / limits[k] for k in after if k[0].startswith(who)]]
        ]
        worst = max(after, key=lambda key: after[key] / now[key])
        best = min(after, key=lambda key: after[key] / now[key])
        rows.append((name, *cells, *(_moved(key, now[key], after[key]) for key in (worst, best))))
    as_is = [
        f"{geometric_mean([now[k] / limits[k] for k in now if k[0].startswith(who)]):.2f}" for who in _GROUPS
    ]
    return table(
        ("buffers / limit's, all readers", *_GROUPS, "most lost", "most won"),
        [("as it is", *as_is, "", ""), *rows],
    )


def _moved(key: tuple[str, str], now: int, after: int) -> str:
    """Say whose reader reads how much more or less; a page or so is chance."""
    return f"{key[0]}: {key[1]}, {now:,} → {after:,}" if abs(after - now) > 1 else ""


def dropped(found: Found) -> str:
    return _changed(found, "dropped")


def alternatives(found: Found) -> str:
    return _changed(found, "alternatives")


def upkeep(found: Found) -> str:
    return table(
        ("index", "who reads it", "buffers", "without it"),
        [
            (f"`{index}`", UPKEEP[index][0], f"{each['with']:,}", f"{each['without']:,}")
            for index, each in found["upkeep"].items()
        ],
    )


def indexes(found: Found) -> str:
    return table(
        ("index", "variant", "bytes a log"),
        [
            (f"`{name}`", VARIANTS[variant], f"{size / found['logs']:.1f}")
            for variant in ("seed", "ours")
            for name, size in found["indexes"][variant].items()
        ],
    )


def writes(found: Found) -> str:
    rows: list[Sequence[object]] = [
        (
            name,
            f"{each['insert']['wal_bytes']:.0f}", f"{each['insert']['cpu_us']:.0f}",
            f"{each['end']['wal_bytes']:.0f}", f"{each['end']['cpu_us']:.0f}",
            f"{each['hot']:.1%}", f"{each['heap_bytes']:.0f}", f"{each['index_bytes']:.0f}",
        )
        for name, each in found["writes"].items()
        if "hot" in each
    ]  # fmt: skip
    return table(
        (
            "a run", "insert: WAL bytes", "CPU µs", "its end: WAL bytes", "CPU µs", "HOT", "heap bytes",
            "index bytes",
        ),
        rows,
    )  # fmt: skip


def parts(found: Found) -> str:
    bare = found["parts"]["a bare table"]
    return table(
        ("an insert into", "WAL bytes", "/ a bare table's", "CPU µs", "/ a bare table's"),
        [
            (
                name,
                f"{each['wal_bytes']:.0f}", f"{each['wal_bytes'] / bare['wal_bytes']:.2f}",
                f"{each['cpu_us']:.0f}", f"{each['cpu_us'] / bare['cpu_us']:.2f}",
            )
            for name, each in found["parts"].items()
        ],
    )  # fmt: skip


def moves(found: Found) -> str:
    return table(
        ("moving a workflow", "logs", "WAL bytes a log", "CPU µs a log"),
        [
            (name, each["logs"], f"{each['wal_bytes']:.0f}", f"{each['cpu_us']:.0f}")
            for name, each in found["writes"].items()
            if name.startswith("move")
        ],
    )


def _grown(found: Found) -> dict[tuple[str, str], list[tuple[float, float]]]:
    grouped: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for each in sorted(found["growth"], key=lambda each: each["logs"]):
        grouped.setdefault((each["caller"], each["reader"]), []).append((each["logs"], each["ours"]))
    return grouped


def _full_pages(found: Found) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Give the pages that are full, where they are so at several sizes: a shorter one reads less."""
    grouped: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for each in sorted(found["growth"], key=lambda each: each["logs"]):
        if each["reader"] in PAGES and each["rows"] > PAGES[each["reader"]]:
            grouped.setdefault((each["caller"], each["reader"]), []).append((each["logs"], each["ours"]))
    return {key: points for key, points in grouped.items() if len(points) > 1}


def growth(found: Found) -> str:
    full = _full_pages(found)

    def exponent(caller: str, reader: str, points: Sequence[tuple[float, float]]) -> str:
        if reader in PAGES:
            points = full.get((caller, reader), ())
        return f"{slope(points):.2f}" if points else ""

    logs = sorted({each["logs"] for each in found["growth"]})
    return table(
        ("buffers of a tenant session", *(f"{size:,} logs" for size in logs), "exponent"),
        [
            (
                f"{caller}: {reader}",
                *(f"{buffers:,.0f}" for _, buffers in points),
                exponent(caller, reader, points),
            )
            for (caller, reader), points in _grown(found).items()
        ],
    )


def python(found: Found) -> str:
    rows: list[Sequence[object]] = []
    for kind, what in (
        ("imports", "import"),
        ("bulk", "10,000 logs at once"),
        ("upgrade", "an empty database to head"),
    ):
        first = next(iter(found[kind].values()))
        rows += [
            (f"{what}: {name}", f"{seconds * 1_000:,.0f} ms", f"{seconds / first:.2f}")
            for name, seconds in found[kind].items()
        ]
    return table(("", "median", "against the first"), rows)


TABLES: Mapping[str, Callable[[Found], str]] = {
    "goals": goals,
    "claim": claim,
    "buffers": buffers,
    "times": times,
    "alternatives": alternatives,
    "dropped": dropped,
    "upkeep": upkeep,
    "indexes": indexes,
    "writes": writes,
    "parts": parts,
    "moves": moves,
    "growth": growth,
    "python": python,
    "sessions": lambda found: tenancy.as_table(found["sessions"]).rstrip(),
}


def plot_readers(found: Found, path: Path) -> None:
    """Draw what each user's reader reads, in all variants."""
    plt = _pyplot()
    of_users = [each for each in found["reads"] if each["caller"].startswith("user")]
    figure, axes = plt.subplots(figsize=(9, 8))
    variants = {name: title for name, title in VARIANTS.items() if name != OWN_ROLE}
    for number, (name, title) in enumerate(variants.items()):
        axes.scatter(
            [each[name]["buffers"] for each in of_users],
            [place + 0.12 * (2 - number) for place in range(len(of_users))],
            s=24, label=title, marker="|" if name == "limit" else "o",
            linewidths=3 if name == "limit" else 0,
        )  # fmt: skip
    axes.set_yticks(range(len(of_users)), [f"{each['caller']}: {each['reader']}" for each in of_users])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"buffers of 8 kB, {found['logs']:,} logs")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_growth(found: Found, path: Path) -> None:
    """Draw what each reader reads in larger and larger tables."""
    plt = _pyplot()
    figure, frames = plt.subplots(1, 3, figsize=(12, 4.5), sharey=True)
    callers = ("user, large", "worker, middle", "super admin, everyone's")
    for axes, caller in zip(frames, callers, strict=True):
        for (who, reader), points in _grown(found).items():
            if who == caller:
                axes.plot(*zip(*points, strict=True), marker="o", label=reader)
        axes.set_title(caller)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("logs")
        axes.grid(alpha=0.3)
    frames[0].set_ylabel("buffers of a tenant session")
    frames[-1].legend(fontsize="small")
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    # The same picture gives the same file.
    mpl.rcParams["svg.hashsalt"] = "workflow-models"
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
