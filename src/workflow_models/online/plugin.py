"""The entry point ``alembic.plugins``: gives Alembic the operation directives."""

import importlib
from typing import Any


def setup(plugin: Any) -> None:
    """Register the directives.

    Alembic calls this while it is being imported, perhaps by the directives themselves: those register
    when their own import ends, so here their module need not be complete.
    """
    del plugin
    importlib.import_module(".directives", __package__)
