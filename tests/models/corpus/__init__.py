"""One model of every kind that MLflow logs, to be asked beside MLflow's own scoring server."""
