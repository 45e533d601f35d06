"""Checkpoint folders in and out: what is read is what is written; what cannot be read is refused, by name and with reason."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from fusionjax.errors import UserError
from fusionjax.hub import Checkpoint, fingerprint, locate, read_checkpoint, write_checkpoint, write_without_weights

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = sorted(folder.name for folder in GOLDEN.iterdir())


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A copy to spoil: of `bert`, which has a pooler and a next-sentence head beside the encoder."""
    return Path(shutil.copytree(GOLDEN / "bert", tmp_path / "bert"))


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    for tree, again in ((one.params, other.params), (one.head, other.head)):
        flat, flat_again = traverse_util.flatten_dict(tree or {}), traverse_util.flatten_dict(again or {})
        assert flat.keys() == flat_again.keys()
        for path, value in flat.items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(flat_again[path]), err_msg="/".join(path))
    assert (one.head is None) == (other.head is None)
    assert (one.config, one.sentence) == (other.config, other.sentence)
    assert one.tokenizer.to_str() == other.tokenizer.to_str()
    assert one.tokenizer_files == other.tokenizer_files


def edit(file: Path, **changes: Any) -> None:
    """Changes settings of a JSON file; None takes one away."""
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    content = {name: value for name, value in content.items() if value is not None}
    file.write_text(json.dumps(content), encoding="utf-8")


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})


# ------------------------------------------------------------------------------------------------------------- round trips
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_was_read(family: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(GOLDEN / family)
    write_checkpoint(tmp_path / "new", checkpoint)
    again = read_checkpoint(tmp_path / "new")
    assert_same(checkpoint, again)
    before, after = load_file(GOLDEN / family / "model.safetensors"), load_file(tmp_path / "new" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name], err_msg=name)
    raw = json.loads((GOLDEN / family / "config.json").read_text(encoding="utf-8"))
    kind = raw["architectures"][0].replace("ForPreTraining", "ForMaskedLM")
    assert again.raw == raw | {"architectures": [kind]}


def test_pooler_and_next_sentence_head_are_carried_along() -> None:
    others = read_checkpoint(GOLDEN / "bert").others
    assert {name.rpartition(".")[0] for name in others} == {"bert.pooler.dense", "cls.seq_relationship"}


def test_without_its_head_an_encoder_loses_the_prefix_and_keeps_the_pooler(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(GOLDEN / "bert")
    checkpoint.others = {name: value for name, value in checkpoint.others.items() if "pooler" in name}
    write_checkpoint(tmp_path, dataclasses.replace(checkpoint, head=None))
    names = load_file(tmp_path / "model.safetensors").keys()
    assert {"pooler.dense.weight", "embeddings.word_embeddings.weight"} <= names
    assert not any(name.startswith(("bert.", "cls.")) for name in names)
    again = read_checkpoint(tmp_path)
    assert again.head is None and again.raw["architectures"] == ["BertModel"]
    assert_same(dataclasses.replace(checkpoint, head=None), again)


def test_settings_can_be_read_without_weights(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(GOLDEN / "xlm-roberta")
    write_without_weights(tmp_path, checkpoint)
    again = read_checkpoint(tmp_path, weights=False)
    assert (again.config, again.sentence, again.params) == (checkpoint.config, checkpoint.sentence, {})


def test_prompts_similarity_and_lower_case_survive(bert: Path, tmp_path: Path) -> None:
    edit(
        bert / "config_sentence_transformers.json",
        prompts={"query": "q: ", "document": ""},
        default_prompt_name="document",
        similarity_fn_name="dot",
    )
    edit(bert / "sentence_bert_config.json", do_lower_case=True, max_seq_length=100)
    checkpoint = read_checkpoint(bert)
    settings = checkpoint.sentence
    assert (settings.prompts, settings.default_prompt) == ({"query": "q: ", "document": ""}, "document")
    assert (settings.similarity, settings.lower, settings.max_length) == ("dot", True, 100)
    write_checkpoint(tmp_path / "new", checkpoint)
    assert_same(checkpoint, read_checkpoint(tmp_path / "new"))


@pytest.mark.parametrize("modes", ["mean", "cls", "max+mean", "mean+max", "cls+max+mean", "weightedmean", "lasttoken+cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_every_pooling_survives(modes: str, normalise: bool, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(GOLDEN / "bert", weights=False)
    checkpoint.sentence = dataclasses.replace(checkpoint.sentence, pooling=modes, normalise=normalise)
    write_without_weights(tmp_path, checkpoint)
    assert read_checkpoint(tmp_path, weights=False).sentence == checkpoint.sentence


# ---------------------------------------------------------------------------------------------- other ways of writing it
def test_gamma_and_beta_of_old_checkpoints(bert: Path) -> None:
    old = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}

    def older(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        renamed = {}
        for name, tensor in tensors.items():
            for new, former in old.items():
                name = name.replace(new, former)
            renamed[name] = tensor
        words = tensors["bert.embeddings.word_embeddings.weight"].copy()
        positions = np.arange(512, dtype=np.int64)[None]
        return renamed | {"cls.predictions.decoder.weight": words, "bert.embeddings.position_ids": positions}

    change_tensors(bert, older)
    checkpoint = read_checkpoint(bert)
    assert_same(checkpoint, read_checkpoint(GOLDEN / "bert"))
    assert checkpoint.others.keys() == read_checkpoint(GOLDEN / "bert").others.keys()


def test_without_prefix(bert: Path) -> None:
    change_tensors(bert, lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()})
    assert_same(read_checkpoint(bert), read_checkpoint(GOLDEN / "bert"))


def test_sharded(bert: Path) -> None:
    shard(bert)
    assert_same(read_checkpoint(bert), read_checkpoint(GOLDEN / "bert"))


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {name: files[place % 2] for place, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({name: tensors[name] for name in where if where[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_weights_are_read_as_float32_and_written_so(dtype: Any, bert: Path, tmp_path: Path) -> None:
    edit(bert / "config.json", torch_dtype=np.dtype(dtype).name, dtype=None)
    change_tensors(bert, lambda tensors: {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    checkpoint, exact = read_checkpoint(bert), read_checkpoint(GOLDEN / "bert")
    for value, full in zip(leaves(checkpoint), leaves(exact), strict=True):
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, full.astype(dtype).astype(np.float32))
    write_checkpoint(tmp_path / "new", checkpoint)
    assert_same(checkpoint, read_checkpoint(tmp_path / "new"))
    raw = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert raw["dtype"] == "float32" and "torch_dtype" not in raw


def leaves(checkpoint: Checkpoint) -> list[np.ndarray]:
    trees = (checkpoint.params, checkpoint.head or {})
    return [np.asarray(leaf) for tree in trees for leaf in traverse_util.flatten_dict(tree).values()]


def test_modernbert_settings_as_they_were_written_first(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "modernbert", tmp_path / "modernbert"))
    edit(
        folder / "config.json",
        layer_types=None,
        rope_parameters=None,
        global_attn_every_n_layers=3,
        position_embedding_type="absolute",
    )
    edit(folder / "config.json", global_rope_theta=160000.0, local_rope_theta=10000.0)
    assert_same(read_checkpoint(folder), read_checkpoint(GOLDEN / "modernbert"))


def test_an_encoder_in_a_folder_of_its_own(bert: Path) -> None:
    inner = bert / "0_Transformer"
    inner.mkdir()
    for file in (*bert.glob("config.json"), *bert.glob("model.*"), *bert.glob("tok*"), bert / "sentence_bert_config.json"):
        file.rename(inner / file.name)
    modules = json.loads((bert / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (bert / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert_same(read_checkpoint(bert), read_checkpoint(GOLDEN / "bert"))
    assert len(fingerprint(bert)) == 64


def test_a_plain_folder_is_pooled_by_the_mean(bert: Path) -> None:
    (bert / "modules.json").unlink()
    settings = read_checkpoint(bert, weights=False).sentence
    assert (settings.pooling, settings.normalise, settings.max_length) == ("mean", False, 512)


def test_a_vocabulary_alone_is_enough(bert: Path) -> None:
    expected = read_checkpoint(bert, weights=False).tokenizer
    pieces = sorted(expected.get_vocab().items(), key=lambda item: item[1])
    (bert / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")
    (bert / "tokenizer.json").unlink()
    found = read_checkpoint(bert, weights=False).tokenizer
    for text in json.loads((bert / "texts.json").read_text(encoding="utf-8")).values():
        assert found.encode(text).ids == expected.encode(text).ids


# ------------------------------------------------------------------------------------------------------------- fingerprint
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: change_tensors(
            folder, lambda tensors: tensors | {"cls.predictions.bias": tensors["cls.predictions.bias"] + np.float32(1e-6)}
        ),
        lambda folder: edit(folder / "config.json", layer_norm_eps=1e-7),
        lambda folder: edit(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True),
        lambda folder: edit(folder / "config_sentence_transformers.json", prompts={"query": "q: "}),
        lambda folder: edit(folder / "tokenizer_config.json", model_max_length=128),
    ],
    ids=["weight", "config", "pooling", "prompts", "length"],
)
def test_the_fingerprint_changes_with_what_changes_the_vectors(change: Callable[[Path], None], bert: Path) -> None:
    before = fingerprint(bert)
    assert before == fingerprint(GOLDEN / "bert")
    (bert / "README.md").write_text("A model card.", encoding="utf-8")
    assert fingerprint(bert) == before
    change(bert)
    assert fingerprint(bert) != before


# ----------------------------------------------------------------------------------------------------------- wrong folders
def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def header_cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shard_missing(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def index_broken(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("{}", encoding="utf-8")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: change_tensors(folder, lambda tensors: {key: tensors[key] for key in tensors if key != name})


def misnamed(folder: Path) -> None:
    first, second = "bert.encoder.layer.1.output.dense.weight", "bert.encoder.layer.1.output.densse.weight"
    change_tensors(folder, lambda tensors: {second if name == first else name: value for name, value in tensors.items()})


def turned(folder: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    change_tensors(folder, lambda tensors: tensors | {name: np.ascontiguousarray(tensors[name].T)})


def untied(folder: Path) -> None:
    words = "bert.embeddings.word_embeddings.weight"
    change_tensors(folder, lambda tensors: tensors | {"cls.predictions.decoder.weight": tensors[words] + 1})


def fewer_words(folder: Path) -> None:
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        change_tensors(folder, lambda tensors, name=name: tensors | {name: tensors[name][:-5]})
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    edit(folder / "config.json", vocab_size=size - 5)


def dense_module(folder: Path) -> None:
    file = folder / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8"))
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    file.write_text(json.dumps(modules), encoding="utf-8")


def modules_in_another_order(folder: Path) -> None:
    file = folder / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(modules[:1] + modules[:0:-1]), encoding="utf-8")


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def put(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (cut_short, "model.safetensors", "damaged or cut short"),
        (header_cut, "model.safetensors", "damaged or cut short"),
        (put("model.safetensors", ""), "model.safetensors", "damaged or cut short"),
        (gone("model.safetensors"), "bert", "no model.safetensors and no model.safetensors.index.json"),
        (pickled, "pytorch_model.bin", "refused, because loading it can run code that it carries; convert it once"),
        (shard_missing, "model-00002-of-00002.safetensors", "missing, though model.safetensors.index.json names it"),
        (index_broken, "model.safetensors.index.json", "weight_map"),
        (misnamed, "bert", "layer.1.output.dense.weight; did you mean 'bert.encoder.layer.1.output.densse.weight'?"),
        (without("bert.embeddings.LayerNorm.bias"), "bert", "no tensor bert.embeddings.LayerNorm.bias; did you mean"),
        (without("bert.embeddings.word_embeddings.weight"), "bert", "no tensor embeddings.word_embeddings.weight (nor bert."),
        (turned, "bert", "0.intermediate.dense.weight has the shape [32, 48], config.json asks for [48, 32]"),
        (config(num_hidden_layers=3), "bert", "no tensor bert.encoder.layer.2."),
        (untied, "bert", "cls.predictions.decoder.weight is not the word embeddings"),
        (fewer_words, "tokenizer.json", "pieces, the word embeddings"),
        (put("tokenizer.json", "{}"), "tokenizer.json", "not a tokeniser"),
        (gone("tokenizer.json"), "bert", "no tokenizer.json, nor what a tokeniser could be made of"),
        (gone("config.json"), "config.json", "no such file (the folder holds: "),
        (put("config.json", '{"model_type": '), "config.json", "not valid JSON"),
        (put("config.json", "[]"), "config.json", "expected an object of settings"),
        (config(vocab_size=None), "config.json", "'vocab_size' is missing"),
        (config(model_type="bart"), "config.json", "model_type 'bart' is not built; did you mean 'bert'?"),
        (config(model_type=None), "config.json", "model_type 'None' is not built"),
        (config(position_embedding_type="relative_key"), "config.json", "position_embedding_type 'relative_key' is not built"),
        (config(is_decoder=True), "config.json", "is_decoder"),
        (config(hidden_act="gelu_neu"), "config.json", "activation 'gelu_neu' is not built; did you mean 'gelu_new'?"),
        (put("modules.json", "{}"), "modules.json", "expected a list of modules"),
        (dense_module, "modules.json", "sentence_transformers.models.Dense is not built"),
        (modules_in_another_order, "modules.json", "in this order; got Transformer, Normalize, Pooling"),
        (put("1_Pooling/config.json", '{"pooling_mode": "meen"}'), "config.json", "'meen' is not built; did you mean 'mean'?"),
        (put("1_Pooling/config.json", "not json"), "config.json", "not valid JSON"),
        (gone("1_Pooling/config.json"), "config.json", "no such file"),
        (put("1_Pooling/config.json", '{"include_prompt": false}'), "config.json", "include_prompt"),
    ],
)  # fmt: skip
def test_wrong_folders_are_refused(spoil: Callable[[Path], object], file: str, reason: str, bert: Path) -> None:
    spoil(bert)
    with pytest.raises(UserError) as caught:
        read_checkpoint(bert)
    message = str(caught.value)
    assert str(bert) in message and file in message and reason in message and "\n" not in message, message


def test_scaled_rotary_positions_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "modernbert", tmp_path / "modernbert"))
    edit(folder / "config.json", rope_parameters={"full_attention": {"rope_type": "yarn", "factor": 2.0}})
    with pytest.raises(UserError, match=r"config\.json: rope_parameters\.full_attention: type 'yarn' is not built"):
        read_checkpoint(folder)


# ----------------------------------------------------------------------------------------------------------------- places
def test_a_folder_is_itself() -> None:
    assert locate(GOLDEN / "bert") == GOLDEN / "bert"


def test_a_hub_id_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(GOLDEN / "bert") if name == "a/b-c" else "")
    assert locate("a/b-c") == GOLDEN / "bert"


def test_a_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        UserError, match=r"^org/name: no such folder, and the hub gave nothing \(ConnectionError: no route to host\)"
    ):
        locate("org/name")


@pytest.mark.parametrize("place", ["nowhere", "/no/such/folder", "./no/folder", "a/b/c"])
def test_neither_folder_nor_hub_id(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="no such folder, and not a hub id"):
        locate(place)


def test_a_file_is_no_folder(bert: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors: a file; a checkpoint is a folder"):
        locate(bert / "model.safetensors")
