"""An HTTP service on workflow-models: its tenants' workflows, their runs, and a worker."""
