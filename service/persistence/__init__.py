"""Diagnoses on disk: records, migrations, store."""
