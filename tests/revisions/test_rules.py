"""What holds for each revision, whatever it does."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.script import Script, ScriptDirectory

from workflow_models import migrations

SCRIPTS = list(ScriptDirectory(str(migrations.script_location())).walk_revisions())

each_revision = pytest.mark.parametrize("script", SCRIPTS, ids=[script.revision for script in SCRIPTS])


def syntax(script: Script) -> ast.Module:
    return ast.parse(Path(script.path).read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def function(tree: ast.Module, name: str) -> ast.FunctionDef:
    [found] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found


def does_something(node: ast.stmt) -> bool:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return not (is_text or isinstance(node, ast.Pass))


@each_revision
def test_a_revision_imports_nothing_that_may_change_its_meaning(script: Script) -> None:
    assert {name.partition(".")[0] for name in imported(syntax(script))} <= {"alembic", "sqlalchemy"}


@each_revision
def test_a_revision_imports_nothing_behind_the_back_of_that_rule(script: Script) -> None:
    names = {node.id for node in ast.walk(syntax(script)) if isinstance(node, ast.Name)}

    assert names & {"__import__", "importlib", "exec", "eval", "open"} == set()


@each_revision
def test_a_revision_has_our_prefix_and_an_id_that_fits_the_version_table(script: Script) -> None:
    assert script.revision.startswith("wf")
    assert len(script.revision) <= 32


@each_revision
def test_a_revisions_file_is_named_after_it(script: Script) -> None:
    assert Path(script.path).stem == script.revision


@each_revision
@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_revision_says_what_it_does_in_both_directions(script: Script, direction: str) -> None:
    assert any(does_something(node) for node in function(syntax(script), direction).body)


@each_revision
@pytest.mark.parametrize("heading", ["Why: ", "Locks: "])
def test_a_revisions_docstring_says_why_and_which_locks(script: Script, heading: str) -> None:
    told = (ast.get_docstring(syntax(script)) or "").splitlines()

    assert [line.removeprefix(heading).strip() for line in told if line.startswith(heading)] not in ([], [""])


@each_revision
def test_each_execute_has_one_statement(script: Script) -> None:
    """In a literal, that is: what stands between dollar quotes is one statement's business."""
    tree = syntax(script)
    literals = [
        argument.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr.startswith("execute")
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]

    assert [text for text in literals if ";" in text.strip().rstrip(";") and "$" not in text] == []


def test_the_first_revision_carries_the_branch_label_and_no_other_does() -> None:
    labelled: dict[str, Any] = {script.revision: script.module.branch_labels for script in SCRIPTS}
    first = SCRIPTS[-1].revision

    assert labelled.pop(first) == (migrations.BRANCH_LABEL,)
    assert set(labelled.values()) == {None}


def test_the_revisions_are_one_chain_in_the_order_of_their_numbers() -> None:
    chain = [script.revision for script in reversed(SCRIPTS)]

    assert [script.down_revision for script in reversed(SCRIPTS)] == [None, *chain[:-1]]
    assert [revision[:6] for revision in chain] == [f"wf{number:04d}" for number in range(1, len(chain) + 1)]
