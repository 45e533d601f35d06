"""What people look at: tables in the terminal, plots, the report of a run. Works on plain data, never on models."""
