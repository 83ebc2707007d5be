"""The generated types: `tsc --strict` accepts rows as PostgreSQL gives them as JSON, and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import Templates
from workflow_models.typescript import interfaces

TSC = Path(sys.prefix, "node_modules/typescript/bin/tsc")
TABLES = {"WorkflowDefinition": "workflow_definitions", "WorkflowExecutionLog": "workflow_execution_logs"}
# What the application's rows do not have: each nullable column is NULL in a row, and is not in another.
FILL = """
INSERT INTO workflow_execution_logs (workflow_id, status, execution_end, trigger_data, execution_result,
    error_details, trigger_id, context, steps_details, duration_ms, retry_count)
SELECT id, 'partial', now(), '{"n": 1}', '{"n": [1]}', 'some', NULL, '{"n": null}', '[{"step": 1}, 2]', 3, 1
FROM workflow_definitions WHERE organization_id IS NOT NULL;
INSERT INTO workflow_execution_logs (workflow_id, status, context, steps_details, retry_count)
SELECT id, 'running', NULL, NULL, NULL FROM workflow_definitions
"""
WRONG = [
    ("trigger_type: 'manual' |", "trigger_type:"),
    ("name: string", "name: number"),
    ("is_active: boolean", "is_active: string"),
    ("created_by: string | null", "created_by: string"),
    ("id: number", "id: string"),
    ("status: 'running' |", "status:"),
    ("execution_end: string | null", "execution_end: string"),
    ("execution_end: string | null", "execution_end: null"),
    ("context: Record<string, unknown> | null", "context: unknown[] | null"),
    ("steps_details: unknown[] | null", "steps_details: string[] | null"),
    ("duration_ms: number | null", "duration_ms: number"),
    ("    error_details: string | null;\n", ""),
    ("retry_count: number | null;", "retry_count: number | null;\n    not_there: string;"),
]


@pytest.fixture(scope="module")
def rejected(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Under which of `types`, `wrong0`, `wrong1` … the rows of a database do not compile."""
    folder = tmp_path_factory.mktemp("types")
    database = templates.clone("adopted_upgraded")
    database.execute(FILL)
    rows = {
        name: [row for (row,) in database.execute(f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY id")]
        for name, table in TABLES.items()
    }
    templates.drop(database)
    variants = {"types": interfaces()}
    for number, (right, wrong) in enumerate(WRONG):
        assert right in interfaces()
        variants[f"wrong{number}"] = interfaces().replace(right, wrong)
    for variant, types in variants.items():
        (folder / f"{variant}.ts").write_text(types)
        # A mistake shows in a few of them, with the last of which the table was filled up.
        first = 0 if variant == "types" else -30
        typed = "\n".join(
            f"export const {name}s: {name}[] = {json.dumps(found[first:])};" for name, found in rows.items()
        )
        imported = f"import {{ {', '.join(rows)} }} from './{variant}';"
        (folder / f"rows-{variant}.ts").write_text(f"{imported}\n{typed}")
    # Without a browser's library, and without a look for mistakes in TypeScript's own.
    options = ["--strict", "--noEmit", "--lib", "es2022", "--skipLibCheck"]
    compiled = subprocess.run(
        [Path(sys.prefix, "bin/node"), TSC, *options, *folder.glob("*.ts")],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compiled.stderr == ""
    errors = re.findall(r"^(\S+)\.ts\(.*: error ", compiled.stdout, re.MULTILINE)
    assert bool(errors) == bool(compiled.returncode)
    return {error.removeprefix("rows-") for error in errors}


def test_rows_are_what_the_types_say(rejected: set[str]) -> None:
    assert "types" not in rejected


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[wrong.strip() for _, wrong in WRONG])
def test_a_wrong_type_does_not_compile(rejected: set[str], number: int) -> None:
    assert f"wrong{number}" in rejected
