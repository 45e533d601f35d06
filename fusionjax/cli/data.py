"""`config show`, `config schema`, `config upgrade`; `data list`, `data describe`, `data prepare`."""

import argparse
from pathlib import Path
from typing import Any

from fusionjax.cli.common import command, print_json, say


def add_parsers(commands: Any) -> None:
    config = commands.add_parser("config", help="show a resolved config or the schema, upgrade a file")
    config = config.add_subparsers(required=True, metavar="WHAT")
    command(config, "show", _config_show, "the resolved config", config=True)
    command(config, "schema", _config_schema, "JSON Schema for editors")
    upgrade = command(config, "upgrade", _config_upgrade, "print a config file in today's keys")
    upgrade.add_argument("file", metavar="FILE", type=Path)

    data = commands.add_parser("data", help="list, describe or prepare data sets").add_subparsers(required=True, metavar="WHAT")
    command(data, "list", _list, "the data sets")
    for name, run, text in (
        ("describe", _describe, "counts, long tail, samples"),
        ("prepare", _prepare, "build a data set into the cache"),
    ):
        parser = command(data, name, run, text)
        parser.add_argument("name", metavar="NAME", help="a data set (fusionjax data list) or a config file (*.yaml)")
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
        if name == "describe":
            parser.add_argument("--plot", type=Path, default=None, help="where to draw the long tail (NAME-long-tail.png)")


def _config_show(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    renamed: dict[str, str] = {}
    print(api.dump_config(api.load_config(arguments.config, arguments.overrides, renamed=renamed)), end="")
    api.say_renamed(arguments.config, renamed, say)
    return 0


def _config_schema(_: argparse.Namespace) -> int:
    from fusionjax import api

    print_json(api.config_schema())
    return 0


def _config_upgrade(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    print(api.upgrade_config(arguments.file), end="")
    return 0


def _list(_: argparse.Namespace) -> int:
    from fusionjax import api

    sources = api.data_sources()
    width = max(len(name) for name, _ in sources)
    for name, text in sources:
        print(f"{name:<{width}}  {text}")
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from fusionjax import api
    from fusionjax.reporting.tables import print_description

    config = _data_config(arguments)
    prepared = api.prepare_data(config, say)
    print_description(api.describe_data(prepared, config))
    if prepared.shop.has("events"):
        plot = arguments.plot or Path(f"{config.name}-long-tail.png")
        api.plot_long_tail(prepared, plot)
        print(f"long tail: {plot}")
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from fusionjax import api

    prepared = api.prepare_data(_data_config(arguments), say)
    print(api.cleaning_effects(prepared))
    print(", ".join(f"{count:,} {part}" for part, count in prepared.shop.counts().items()))
    print(f"fingerprint {prepared.fingerprint}")
    return 0


def _data_config(arguments: argparse.Namespace) -> Any:
    """The `data` section: of a config file, or of the defaults with another name."""
    from fusionjax import api

    if arguments.name.endswith((".yaml", ".yml")):
        return api.load_config(arguments.name, arguments.overrides).data
    return api.load_config(None, [f"data.name={arguments.name}", *arguments.overrides]).data
