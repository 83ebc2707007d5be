"""Which hand changes each tool finds, and which foreign ones it reports; a table in Markdown.

`python -m bench.autogenerate` in an environment that has the project and `requirements.txt`. With
`--write FILE` the part of FILE between `<!-- measured -->` and `<!-- end -->` is replaced.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.autogenerate.tools import TOOLS

_PROJECT = Path(__file__).parents[2]
_BEGIN, _END = "<!-- measured -->\n", "<!-- end -->\n"


def _measured(tool: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.autogenerate.tools", tool],
        cwd=_PROJECT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{tool}: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _mark(value: str) -> str:
    return {"found": "✓", "": "–"}.get(value, "error")


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def table() -> str:
    results = {tool: _measured(tool) for tool in TOOLS}
    hand = next(iter(results.values()))["hand"]
    foreign = next(iter(results.values()))["foreign"]

    def count(kind: str, value: str) -> list[int]:
        return [sum(found == value for found in result[kind].values()) for result in results.values()]

    lines = [
        _row("", *results),
        _row(*["---"] * (len(results) + 1)),
        _row(f"of {len(hand)} hand changes found", *count("hand", "found")),
        _row(f"of {len(foreign)} foreign changes reported", *count("foreign", "found")),
        _row("reported where nothing differs", *(result["noise"] for result in results.values())),
        _row("waits for a writer", *("yes" if result["waits"] else "no" for result in results.values())),
        "\n",
        _row("hand change", *results),
        _row(*["---"] * (len(results) + 1)),
        *(_row(name, *(_mark(result["hand"][name]) for result in results.values())) for name in hand),
    ]
    return "".join(lines)


def main() -> None:
    measured = table()
    print(measured, end="")
    if "--write" in sys.argv:
        document = Path(sys.argv[sys.argv.index("--write") + 1])
        before, _, rest = document.read_text().partition(_BEGIN)
        _, _, after = rest.partition(_END)
        document.write_text(f"{before}{_BEGIN}{measured}{_END}{after}")


if __name__ == "__main__":
    main()
