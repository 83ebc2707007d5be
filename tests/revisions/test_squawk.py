"""Each revision's SQL by itself lints clean with squawk.

squawk reads past the text of a block, where most of our statements stand. So a block is replaced by the
statements in it, also those that it puts together for EXECUTE. Left out is what would hide the rest: what
is done on temporary clones, and CREATE TABLE, since of a new table squawk reports nothing.
"""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.application.states import REVISIONS
from tests.command import PROJECT
from tests.online.test_script import STATEMENT
from workflow_models import migrations
from workflow_models.online import statements

SQUAWK = Path(sys.executable).with_name("squawk")

RUN_AGAIN = "it stands in a block that looks first, and a block is one transaction"
ALLOWED = {
    ("prefer-robust-stmts", r"ALTER TABLE|CREATE STATISTICS"): RUN_AGAIN,
    ("ban-drop-constraint", r"ALTER TABLE \w+ DROP CONSTRAINT"): (
        "one that is not as declared, for the right one that follows in the same transaction"
    ),
    ("require-concurrent-index-deletion", r"DROP INDEX IF EXISTS"): (
        "one that is INVALID or was replaced; the online way drops it concurrently"
    ),
    ("adding-not-nullable-field", r"ALTER TABLE a_name ALTER COLUMN a_name SET NOT NULL"): (
        "a column that has lost it by hand, as docs/adopting.md says"
    ),
    ("adding-required-field", r"ALTER TABLE a_name ADD COLUMN a_name text NOT NULL"): (
        "an upgrade is refused before, where a table lacks such a column"
    ),
    ("ban-drop-not-null", r"ALTER TABLE a_name ALTER COLUMN a_name DROP NOT NULL"): (
        "one that somebody has set by hand: logs of global workflows have no organization"
    ),
    ("ban-drop-default", r"ALTER TABLE a_name ALTER COLUMN a_name DROP DEFAULT"): (
        "one that somebody has set by hand"
    ),
    ("renaming-object", r"ALTER (SEQUENCE|INDEX|TABLE \w+ RENAME CONSTRAINT)"): (
        "that of a serial, an index that is being replaced, a foreign key: no statement names them"
    ),
}


class Finding(NamedTuple):
    rule: str
    statement: str


_VERB = (
    r"(?:ALTER|ANALYZE|CLUSTER|COMMENT|CREATE|DELETE|DROP|GRANT|INSERT|LOCK|REINDEX|REVOKE|TRUNCATE|UPDATE"
    r"|VACUUM|WITH)\b"
)
_BLOCK = re.compile(r"DO \$(?P<tag>\w*)\$(?P<body>.*)\$(?P=tag)\$;", re.DOTALL)
_INNER = re.compile(
    rf"(?:^\s*|\b(?:THEN|ELSE|LOOP|BEGIN)\s+)(?P<statement>{_VERB}.*)", re.DOTALL | re.MULTILINE
)
_EXECUTED = re.compile(r"\bEXECUTE\s+(?P<pieces>(?:format\(|')[^;]*)")
_TEXT = re.compile(r"'((?:[^']|'')*)'")


def visible(script: Iterable[str]) -> list[str]:
    """The statements of a script and of the blocks in it, but for clones and new tables."""
    found = [each for statement in script for each in _of_block(statement)]
    return [each for each in found if "pg_temp." not in each and not each.startswith("CREATE TABLE ")]


def _of_block(statement: str) -> Iterator[str]:
    block = _BLOCK.fullmatch(statement)
    if not block:
        yield statement
        return
    for found in STATEMENT.finditer(block["body"]):
        executed = _EXECUTED.search(found[0])
        inner = _INNER.search(found[0])
        if executed:
            yield from _of_template(executed["pieces"])
        elif inner:
            yield inner["statement"]


def _of_template(pieces: str) -> Iterator[str]:
    """What an EXECUTE may run: its texts behind each other, with something for each placeholder."""
    texts = [found.replace("''", "'") for found in _TEXT.findall(pieces)]
    template = texts[0]
    if template.startswith(("GRANT", "REVOKE", "SELECT", "COMMENT")):  # no rule is about those
        return
    if template.endswith("ADD COLUMN %I %s"):
        for end in ("", " DEFAULT now()", " NOT NULL"):
            yield _filled(template.replace("%I %s", "%I text") + end)
    elif template.endswith("ALTER COLUMN %I "):
        yield from (_filled(template + end) for end in ("SET DEFAULT 0", "DROP DEFAULT"))
    elif template.endswith("ALTER COLUMN %I %s NOT NULL"):
        yield from (_filled(template.replace("%I %s", f"%I {verb}")) for verb in ("SET", "DROP"))
    else:
        yield _filled(template)


def _filled(template: str) -> str:
    return template.replace("%I", "a_name").replace("%s", "a_name").replace("%L", "'a_text'") + ";"


def lint(script: Iterable[str], tmp_path: Path) -> list[Finding]:
    written = tmp_path / "revision.sql"
    found = visible(script)
    written.write_text("\n\n".join(found) + "\n")
    ran = subprocess.run(
        [SQUAWK, "--config", PROJECT / ".squawk.toml", "--reporter", "json", written],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stderr == ""
    starts = list(itertools.accumulate((each.count("\n") + 2 for each in found), initial=0))
    return [
        Finding(
            each["rule_name"],
            next(text for text, end in zip(found, starts[1:], strict=True) if each["line_end"] < end),
        )
        for each in json.loads(ran.stdout)
    ]


def is_allowed(finding: Finding, allowed: tuple[str, str]) -> bool:
    rule, statement = allowed
    return finding.rule == rule and re.match(statement, finding.statement) is not None


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    return {
        revision: lint(migrations.script(f"{earlier}:{revision}"), tmp_path_factory.mktemp(revision))
        for earlier, revision in itertools.pairwise(["base", *REVISIONS])
    }


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_sql_of_a_revision_lints_clean(findings: dict[str, list[Finding]], revision: str) -> None:
    assert [
        finding
        for finding in findings[revision]
        if not any(is_allowed(finding, allowed) for allowed in ALLOWED)
    ] == []


@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda allowed: allowed[0])
def test_what_is_allowed_is_found_somewhere(
    findings: dict[str, list[Finding]], allowed: tuple[str, str]
) -> None:
    assert any(is_allowed(finding, allowed) for found in findings.values() for finding in found)


TIMEOUTS = ["SET lock_timeout = 400;", "SET statement_timeout = 0;"]
BAD = {
    "CREATE INDEX IF NOT EXISTS by_title ON books (title)": "require-concurrent-index-creation",
    "ALTER TABLE loans ADD CONSTRAINT of_book FOREIGN KEY (book_id) REFERENCES books (id)": (
        "adding-foreign-key-constraint"
    ),
    "ALTER TABLE books ADD CONSTRAINT pages CHECK (pages > 0)": "constraint-missing-not-valid",
    "ALTER TABLE books ALTER COLUMN pages TYPE bigint": "changing-column-type",
    "ALTER TABLE books DROP COLUMN pages": "ban-drop-column",
    "EXECUTE format('ALTER TABLE %s ALTER COLUMN %I TYPE bigint', target, attname)": "changing-column-type",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_statement_in_a_block_is_found(tmp_path: Path, bad: str) -> None:
    block = f"{statements.unless('SELECT FROM books WHERE pages IS NULL', bad)};"

    found = {finding.rule for finding in lint([*TIMEOUTS, block], tmp_path)}

    assert BAD[bad] in found
