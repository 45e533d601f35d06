"""A run as one YAML file: `schema` says which keys there are, `yaml_tree` and `load` read and write them."""

from fusionjax.config.load import changed_keys, config_digest, dump_run, json_schema, load_run, load_values
from fusionjax.config.schema import Run

__all__ = ["Run", "changed_keys", "config_digest", "dump_run", "json_schema", "load_run", "load_values"]
