"""A trained run, answering."""
