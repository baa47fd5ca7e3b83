-- Runs once, when the volume is empty. POSTGRES_DB made the database of MLflow; this is the ledger's.
CREATE DATABASE registry_sync;
