"""`workflow-models …`: the package on the command line.

What a command needs is imported by that command, so that `--help` answers at once.
"""

import sys

try:
    from workflow_models.cli import housekeeping, looking, migrating, writing
    from workflow_models.cli.group import main
except ModuleNotFoundError as error:
    if error.name != "click":
        raise
    sys.exit("error: click is not installed.\n  Next: pip install 'workflow-models[cli]'")

__all__ = ["housekeeping", "looking", "main", "migrating", "writing"]
