from workflow_models.cli import main

main(prog_name="workflow-models")
