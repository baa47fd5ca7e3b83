"""Real MLflow models for every test; see `tests.models.catalogue`."""
