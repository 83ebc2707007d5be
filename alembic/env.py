"""Called by Alembic for each command; everything is in ``workflow_models.online``."""

from logging.config import fileConfig

from alembic import context

from workflow_models import migrations
from workflow_models.online.run import run

# A caller from Python keeps its own logging.
if context.config.cmd_opts is not None and context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

run(migrations.target)
