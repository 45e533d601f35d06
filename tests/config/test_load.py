"""Reading configs: every kind of mistake is told plainly, layers merge as documented, what is dumped reads back the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionjax.config import changed_keys, config_digest, dump_run, json_schema, load_run, yaml_tree
from fusionjax.config.schema import Run
from fusionjax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder one stands in, so that messages hold short names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


# ------------------------------------------------------------------------------------------------------------- mistakes
FILE_MISTAKES = {
    "unknown section": ("sed: 1", "x.yaml:1: sed: unknown key; did you mean 'seed'?"),
    "unknown key": ("seed: 1\ntrain:\n  stepz: 3", "x.yaml:3: train.stepz: unknown key; did you mean 'steps'?"),
    "key of another section": ("steps: 4", "x.yaml:1: steps: unknown key; did you mean 'train.steps'?"),
    "key like no other": ("data: {clean: {qqq: 1}}", "x.yaml:1: data.clean.qqq: unknown key; valid: case, deduplicate_events"),
    "unknown table": ("data: {files: {columns: {prodcts: {}}}}", "columns.prodcts: unknown key; did you mean 'products'?"),
    "text for integer": ("train:\n  steps: many", "x.yaml:2: train.steps: expected an integer ≥ 0 or null, got 'many'"),
    "quoted integer": ("seed: '3'", "x.yaml:1: seed: expected an integer ≥ 0 and < 2147483648, got '3'"),
    "true for integer": ("train: {log_every: true}", "train.log_every: expected an integer ≥ 1, got true"),
    "true for number": ("train: {epochs: true}", "train.epochs: expected a number > 0 or null, got true"),
    "fraction for integer": ("train: {accumulate: 1.5}", "train.accumulate: expected an integer ≥ 1, got 1.5"),
    "whole float for integer": ("train: {accumulate: 2.0}", "train.accumulate: expected an integer ≥ 1, got 2.0"),
    "null for integer": ("seed:", "x.yaml:1: seed: expected an integer ≥ 0 and < 2147483648, got null"),
    "below the range": ("train: {steps: -1}", "train.steps: expected an integer ≥ 0 or null, got -1"),
    "above the range": ("text: {max_length: 9000}", "text.max_length: expected an integer ≥ 4 and ≤ 8192, got 9000"),
    "far above the range": (f"seed: {10**30}", f"seed: expected an integer ≥ 0 and < 2147483648, got {10**30}"),
    "number out of range": ("text: {dropout: 1}", "text.dropout: expected a number ≥ 0 and < 1, got 1"),
    "text for number": ("text: {dropout: low}", "text.dropout: expected a number ≥ 0 and < 1, got 'low'"),
    "infinity": ("train: {epochs: .inf}", "train.epochs: expected a number > 0 or null, got '.inf'"),
    "overflow": ("train: {epochs: 1e999}", "x.yaml:1: train.epochs: expected a finite number, got 1e999"),
    "text for switch": ("data: {clean: {html: yes}}", "data.clean.html: expected true or false, got 'yes'"),
    "integer for switch": ("data: {clean: {html: 1}}", "data.clean.html: expected true or false, got 1"),
    "number for text": ("data: {name: 5}", "data.name: expected text, got 5"),
    "date is text": ("seed: 2024-01-01", "seed: expected an integer ≥ 0 and < 2147483648, got '2024-01-01'"),
    "octal is text": ("seed: 010", "seed: expected an integer ≥ 0 and < 2147483648, got '010'"),
    "unknown choice": (
        "train: {optimiser: {name: adamx}}",
        "train.optimiser.name: expected one of 'adamw', 'adam', 'adagrad_torch', 'adagrad_optax', 'sgd', got 'adamx'; did you "
        "mean 'adam",
    ),
    "unknown numeric choice": ("model: {entity: {norm: 3}}", "model.entity.norm: expected one of 1, 2, got 3"),
    "item of a list": (
        "text:\n  fields:\n  - title\n  - titel",
        "text.fields[1]: expected one of 'title', 'description', 'brand', 'category', got 'titel'; did you mean 'title'",
    ),
    "text for list": ("text: {fields: title}", "text.fields: expected a list, each item one of 'title', 'description'"),
    "neither of two types": (
        "data: {graph: {attributes: 3}}",
        "data.graph.attributes: expected true or false or a list, each item text, got 3",
    ),
    "value for section": ("model: 5", "x.yaml:1: model: expected a section of keys (dim, heads, entity, product, user), got 5"),
    "empty section": ("data:\nseed: 1", "x.yaml:1: data: expected a section of keys (name, source_dir, cache_dir"),
    "section for value": ("seed: {a: 1}", 'x.yaml:1: seed: expected an integer ≥ 0 and < 2147483648, got {"a": 1}'),
    "keys that disagree": ("text: {width: 100, heads: 3}", "x.yaml:1: text: width 100 is not a multiple of heads 3"),
    "steps and epochs": ("train: {steps: 1, epochs: 1}", "x.yaml:1: train: give steps or epochs, not both"),
    "neither steps nor epochs": ("train: {steps: null}", "x.yaml:1: train: give steps or epochs"),
    "key twice": ("seed: 1\ndata: {}\nseed: 2", "x.yaml:3: seed: key given twice; first on line 1"),
    "inner key twice": ("train:\n  steps: 1\n  steps: 2", "x.yaml:3: train.steps: key given twice; first on line 2"),
    "key that is no text": ("train:\n  1: 2", "x.yaml:2: train: a key must be text, got 1"),
    "syntax": ("seed: 1\ntrain: [1, 2", "x.yaml:2: not valid YAML: "),
    "tab": ("train:\n\tsteps: 1", "x.yaml:2: not valid YAML: "),
    "two documents": ("seed: 1\n---\nseed: 2", "x.yaml:2: not valid YAML: "),
    "control character": ("seed: '\x07'", "x.yaml: not valid YAML: "),
    "python tag": ("seed: !!python/object/apply:os.getcwd []", "x.yaml:1: seed: tag 'tag:yaml.org,2002:python/object"),
    "false tag": ("seed: !!int many", "x.yaml:1: seed: cannot read 'many'"),
    "half a character": ('data: {name: "\\ud800"}', "x.yaml:1: data.name: cannot read '\\ud800'"),
    "alias of itself": ("train: &a\n  optimiser: *a", "train.optimiser: an alias that holds itself"),
    "unknown alias": ("train: *a", "x.yaml:1: not valid YAML: found undefined alias"),
    "too deep": ("seed: " + "[" * 5000, "x.yaml: nested too deeply"),
    "a list": ("- seed", 'x.yaml: expected keys and values (`seed: 0`), got ["seed"]'),
    "text alone": ("seed", "x.yaml: expected keys and values (`seed: 0`), got 'seed'"),
    "nothing": ("# seed: 0\n", "x.yaml: expected keys and values (`seed: 0`), got nothing"),
    "extends no name": ("extends: [a.yaml]", 'x.yaml:1: extends: expected the name of a config file, got ["a.yaml"]'),
    "extends what is not there": ("seed: 1\nextends: y.yaml", "extends: no such config file: y.yaml; did you mean 'x.yaml'?"),
    "extends inside a section": ("data: {extends: y.yaml}", "x.yaml:1: data.extends: unknown key"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), FILE_MISTAKES.values(), ids=FILE_MISTAKES)
def test_mistake_in_a_file_is_told_in_one_line(folder: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(write("x.yaml", text))
    message = str(caught.value)
    assert told in message
    assert message.startswith("x.yaml") and "\n" not in message
    assert not any(jargon in message for jargon in ("pydantic", "http", "Input should", "validation error", "Traceback"))


OVERRIDE_MISTAKES = {
    "train.steps": "command line: 'train.steps': expected KEY=VALUE, such as train.steps=100",
    "=3": "command line: '=3': expected KEY=VALUE",
    "train..steps=3": "command line: 'train..steps=3': expected KEY=VALUE",
    "train.steps=many": "command line: train.steps: expected an integer ≥ 0 or null, got 'many'",
    "train.steps=": "command line: train: give steps or epochs",
    "seed=1=2": "command line: seed: expected an integer ≥ 0 and < 2147483648, got '1=2'",
    "data.nam=x": "command line: data.nam: unknown key; did you mean 'name'?",
    "lr=1": "command line: lr: unknown key; valid: data, evaluation, model, objectives, seed, seeds, settings, text, ",
    "seed.x=1": 'command line: seed: expected an integer ≥ 0 and < 2147483648, got {"x": 1}',
    "data=demo_shop": "command line: data: expected a section of keys (name,",
    "data.name=@x": "command line: data.name: not valid YAML: ",
    "data={nam: x}": "command line: data.nam: unknown key; did you mean 'name'?",
    "data={name: x, name: y}": "command line: data: name: key given twice",
    "text.heads=3": "command line: text: width 128 is not a multiple of heads 3",
    "extends=b.yaml": "command line: extends: stands in a file only",
}


@pytest.mark.parametrize(("override", "told"), OVERRIDE_MISTAKES.items(), ids=OVERRIDE_MISTAKES)
def test_mistake_in_an_override_is_told_in_one_line(folder: Path, override: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(write("x.yaml", "seed: 1"), [override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^no such config file: quikstart\.yaml$"):
        load_run("quikstart.yaml")
    write("quickstart.yaml", "seed: 1")
    with pytest.raises(UserError, match=r"no such config file: quikstart\.yaml; did you mean 'quickstart\.yaml'"):
        load_run("quikstart.yaml")
    with pytest.raises(UserError, match=r"^\.: cannot be read: "):
        load_run(".")
    Path("latin.yaml").write_bytes("data: {name: Größe}".encode("latin-1"))
    with pytest.raises(UserError, match=r"^latin\.yaml: not UTF-8 text \(byte 15\)"):
        load_run("latin.yaml")


def test_all_problems_are_told_at_once_each_with_its_own_place(folder: Path) -> None:
    write("base.yaml", "seed: -1\nmodel: 5\ntrain:\n  log_every: no\n")
    write("x.yaml", "extends: base.yaml\ntrain:\n  patience: -2\n")
    with pytest.raises(UserError) as caught:
        load_run("x.yaml", ["text.layers=0", "dta.name=x"])
    lines = sorted(str(caught.value).split("\n"))
    assert [line.split(" expected")[0].split(" unknown")[0] for line in lines] == [
        "base.yaml:1: seed:",
        "base.yaml:2: model:",
        "base.yaml:4: train.log_every:",
        "command line: dta:",
        "command line: text.layers:",
        "x.yaml:3: train.patience:",
    ]


# ------------------------------------------------------------------------------------------------------------ good files
def test_scalars_are_read_as_a_person_means_them(folder: Path) -> None:
    run = load_run(
        write(
            "x.yaml",
            "data: {name: no, source_dir: 12:30:00, demo_shop: {products: 1_000_000}}\n"
            "train: {optimiser: {learning_rate: {encoder: 1e-3, tables: .5, heads: 1}}}\n",
        )
    )
    assert (run.data.name, run.data.source_dir, run.data.demo_shop.products) == ("no", "12:30:00", 1_000_000)
    rates = run.train.optimiser.learning_rate
    assert (rates.encoder, rates.tables, rates.heads) == (0.001, 0.5, 1.0)
    assert isinstance(rates.heads, float)


def test_anchors_and_merge_keys(folder: Path) -> None:
    text = "objectives:\n  alignment: &a {weight: 0.5, batch_size: 8}\n  query_product: {<<: *a, batch_size: 16}\n"
    objectives = load_run(write("x.yaml", text)).objectives
    assert (objectives.alignment.weight, objectives.alignment.batch_size) == (0.5, 8)
    assert (objectives.query_product.weight, objectives.query_product.batch_size) == (0.5, 16)


def test_a_section_given_in_part_keeps_the_other_defaults(folder: Path) -> None:
    run = load_run(write("x.yaml", "train: {log_every: 7}"))
    assert (run.train.steps, run.train.log_every) == (Run().train.steps, 7)
    assert changed_keys(Run(), run) == [("train.log_every", Run().train.log_every, 7)]


def test_byte_order_mark_and_windows_line_ends(folder: Path) -> None:
    Path("x.yaml").write_bytes(b"\xef\xbb\xbfseed: 3\r\ntrain:\r\n  steps: 2\r\n")
    assert (load_run("x.yaml").seed, load_run("x.yaml").train.steps) == (3, 2)


def test_relative_source_dir_is_kept_as_written(folder: Path) -> None:
    write("configs/x.yaml", "data: {source_dir: ../shop}")
    assert load_run("configs/x.yaml").data.source_dir == "../shop"
    assert load_run("configs/x.yaml", ["data.source_dir=./my shop"]).data.source_dir == "./my shop"


# --------------------------------------------------------------------------------------------------------------- extends
def test_extends_chain_merges_mappings_and_replaces_the_rest(folder: Path) -> None:
    write("sub/c.yaml", "seed: 1\ntext: {fields: [title, brand, category], width: 64, layers: 3}\n")
    write("b.yaml", "extends: sub/c.yaml\ntext: {fields: [title], layers: 4}\n")
    write("sub/a.yaml", "extends: ../b.yaml\ntext: {layers: 5}\ndata: {files: {columns: {products: {id: sku}}}}\n")
    run = load_run("sub/a.yaml", ["data.files.columns.events.user=customer"])
    assert (run.seed, run.text.fields, run.text.width, run.text.layers) == (1, ("title",), 64, 5)
    assert run.data.files.columns == {"products": {"id": "sku"}, "events": {"user": "customer"}}


def test_extends_in_a_circle(folder: Path) -> None:
    write("a.yaml", "extends: sub/b.yaml")
    write("sub/b.yaml", "seed: 1\nextends: ../a.yaml")
    with pytest.raises(
        UserError, match=r"sub/b\.yaml:2: extends: goes round in a circle: a\.yaml → sub/b\.yaml → sub/\.\./a\.yaml"
    ):
        load_run("a.yaml")
    write("self.yaml", "extends: self.yaml")
    with pytest.raises(UserError, match=r"goes round in a circle: self\.yaml → self\.yaml"):
        load_run("self.yaml")


@pytest.mark.parametrize(
    ("base", "change", "overrides", "length"),
    [
        ("{steps: 5}", "{epochs: 2}", [], (None, 2.0)),
        ("{epochs: 2}", "{steps: 5}", [], (5, None)),
        ("{epochs: 2}", "{log_every: 1}", [], (None, 2.0)),
        ("{steps: 5}", "{log_every: 1}", ["train.epochs=3"], (None, 3.0)),
        ("{steps: 5}", "{epochs: 2}", ["train.steps=9"], (9, None)),
        ("{steps: 5}", "{epochs: 2, steps: null}", [], (None, 2.0)),
        ("{steps: 5}", "{steps: null}", ["train.epochs=1"], (None, 1.0)),
    ],
)
def test_steps_and_epochs_replace_each_other(
    folder: Path, base: str, change: str, overrides: list[str], length: tuple[int | None, float | None]
) -> None:
    write("base.yaml", f"train: {base}")
    train = load_run(write("x.yaml", f"extends: base.yaml\ntrain: {change}"), overrides).train
    assert (train.steps, train.epochs) == length


def test_steps_and_epochs_on_one_command_line(folder: Path) -> None:
    with pytest.raises(UserError, match="command line: train: give steps or epochs, not both"):
        load_run(write("x.yaml", "seed: 1"), ["train.steps=5", "train.epochs=1"])


# ------------------------------------------------------------------------------------------------------------- overrides
@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=7", "seed", 7),
        (" seed = 7 ", "seed", 7),
        ("train.optimiser.learning_rate.heads=1e-3", "train.optimiser.learning_rate.heads", 1e-3),
        ("data.source_dir=null", "data.source_dir", None),
        ("data.source_dir=", "data.source_dir", None),
        ("data.source_dir=a=b", "data.source_dir", "a=b"),
        ("data.source_dir='a: b'", "data.source_dir", "a: b"),
        ("data.source_dir=我的 店", "data.source_dir", "我的 店"),
        ("text.fields=[title, brand]", "text.fields", ["title", "brand"]),
        ("text={layers: 3, width: 64}", "text.layers", 3),
        ("evaluation.baselines=false", "evaluation.baselines", False),
        ("data.graph.attributes=[colour]", "data.graph.attributes", ["colour"]),
        ("data.graph.attributes=false", "data.graph.attributes", False),
        ("data.files.columns.products.id=sku", "data.files.columns", {"products": {"id": "sku"}}),
    ],
)
def test_override_forms(folder: Path, override: str, key: str, value: object) -> None:
    found = load_run(write("x.yaml", "data: {source_dir: old}"), [override]).model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_last_override_wins(folder: Path) -> None:
    assert load_run(write("x.yaml", "seed: 1"), ["seed=2", "seed=3"]).seed == 3


# ------------------------------------------------------------------------------------------------ dump, digest, changes
def test_dump_is_stable_complete_and_reads_back(folder: Path) -> None:
    run = load_run(write("x.yaml", "data: {name: 'no', source_dir: '1e-3'}\ntext: {fields: [brand]}"), ["train.epochs=2"])
    text = dump_run(run)
    assert text == dump_run(run)
    assert list(yaml.safe_load(text)) == list(Run.model_fields)
    assert load_run(write("y.yaml", text)) == run
    assert dump_run(load_run("y.yaml")) == text
    # Other readers of YAML, with its older rules for scalars, see the same values.
    assert yaml.safe_load(text) == run.model_dump(mode="json")


def test_digest_depends_on_values_alone(folder: Path) -> None:
    one = load_run(write("a.yaml", "text: {width: 64, dropout: 0}\nseed: 3"))
    same = load_run(write("b.yaml", "seed: 3\ntext: {dropout: 0.0, width: 64}"))
    other = load_run("b.yaml", ["seed=4"])
    assert config_digest(one) == config_digest(same) != config_digest(other)
    assert len(config_digest(one)) == 64
    command = "from fusionjax.config import config_digest, load_run; print(config_digest(load_run('a.yaml')))"
    # Another process, with another seed for the hashes of text.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5"}
    again = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == config_digest(one)


def test_changed_keys(folder: Path) -> None:
    write("x.yaml", "seed: 1")
    a = load_run("x.yaml", ["text.fields=[title]", "data.files.columns.users.id=uid"])
    b = load_run("x.yaml", ["seed=2", "train.epochs=1", "text.fields=[brand]"])
    assert changed_keys(a, a) == []
    assert changed_keys(a, b) == [
        ("seed", 1, 2),
        ("data.files.columns.users", {"id": "uid"}, None),
        ("text.fields", ["title"], ["brand"]),
        ("train.steps", 1000, None),
        ("train.epochs", None, 1.0),
    ]


# ---------------------------------------------------------------------------------------------------------- JSON Schema
def test_json_schema_takes_configs_and_refuses_mistakes(folder: Path) -> None:
    schema = json_schema()
    json.dumps(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(dump_run(load_run(write("x.yaml", "seed: 1")))))
    validator.validate({"extends": "base.yaml", "train": {"epochs": 2}})
    for wrong in (
        {"sed": 1},
        {"train": {"steps": "many"}},
        {"seed": -1},
        {"extends": 3},
        {"data": {"files": {"columns": {"x": {}}}}},
    ):
        assert not validator.is_valid(wrong), wrong
    assert "synthetic" in schema["$defs"]["DemoShop"]["description"]


# ----------------------------------------------------------------------------------------------------------- properties
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
FRACTIONS = st.floats(0, 1, exclude_max=True)
OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "data.name": TEXT | st.sampled_from(["no", "1e-3", "1:30", "010", "~", "2024-01-01", "=", "<<", "a: b", "- x", ".inf"]),
        "data.source_dir": TEXT | st.none(),
        "data.split": st.fixed_dictionaries({"valid_share": FRACTIONS}),
        "data.graph.attributes": st.booleans() | st.lists(TEXT, max_size=3),
        "data.files.columns.products": st.dictionaries(TEXT, TEXT, max_size=3),
        "text.dropout": FRACTIONS,
        "text.fields": st.lists(st.sampled_from(["title", "brand"]), max_size=3),
        "train.epochs": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        "train.optimiser.weight_decay": st.floats(min_value=0, allow_infinity=False) | st.integers(0, 10),
        "evaluation.tasks": st.none() | st.lists(st.sampled_from(["search", "recommendation"]), max_size=2),
    },
)  # fmt: skip


@settings(max_examples=60)
@given(OVERRIDES)
def test_load_of_dump_is_the_identity(tmp_path_factory: pytest.TempPathFactory, values: dict) -> None:
    folder = tmp_path_factory.getbasetemp()
    empty, again = folder / "empty.yaml", folder / "again.yaml"
    empty.write_text("{}", encoding="utf-8")
    # JSON is YAML: the values reach the loader by another way than its own dump.
    run = load_run(empty, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    for key, value in values.items():
        found = run.model_dump(mode="json")
        for part in key.split("."):
            found = found[part]
        assert found == (found | value if isinstance(found, dict) else value)
    again.write_text(dump_run(run), encoding="utf-8")
    assert load_run(again) == run
    assert config_digest(load_run(again)) == config_digest(run)


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_user_error(text: str) -> None:
    try:
        values, _ = yaml_tree.parse(text, "x.yaml")
    except UserError as error:
        assert str(error).startswith("x.yaml")
    else:
        json.dumps(values, allow_nan=False)
