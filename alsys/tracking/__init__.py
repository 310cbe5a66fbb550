"""MLflow, metrics and the report. The only package that imports mlflow, with the calculator."""
