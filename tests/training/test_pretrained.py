"""Runs that start from a checkpoint: what is trained, what a step costs in memory but not in gradients, what comes out."""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fusionjax
from fusionjax import pipeline
from fusionjax.cli import main
from fusionjax.config import load_run, schema
from fusionjax.data.inputs import Inputs, build_inputs, texts_read
from fusionjax.data.prepare import prepare
from fusionjax.errors import UserError
from fusionjax.export import export
from fusionjax.hub.sentence import Settings
from fusionjax.losses import normalise
from fusionjax.models.joint import JointModel
from fusionjax.objectives import query_product
from fusionjax.objectives.towers import Towers, catalogue
from fusionjax.runs import RunFolder
from fusionjax.text_encoder import TextEncoder
from fusionjax.training.loss import joint_loss
from fusionjax.training.state import TrainState, create
from fusionjax.training.steps import build_step
from fusionjax.training.stream import StepSource, packed_rows
from fusionjax.training.teacher import taught
from fusionjax.training.tuning import is_trained, pretrained
from tests.shops import CALM, TINY, model_of, numbers_for, run_optimiser
from tests.tiny_bert import write_tiny_bert

ONLY_SEARCH = (
    "model.product.sources=[text]",
    "objectives.link_prediction.weight=0",
    "objectives.alignment.weight=0",
    "objectives.next_product.weight=0",
    "text.live=32",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("checkpoint") / "tiny")


@dataclasses.dataclass
class Prepared:
    config: schema.Run
    inputs: Inputs
    model: JointModel
    state: TrainState
    batch: Any

    def loss(self, params: Any = None, batch: Any = None) -> tuple[Any, Any]:
        """(loss, gradient) of step 0, dropout or not as the config says."""
        arguments = (params or self.state.params, self.state.bank, batch or self.batch, jax.random.key(1))
        (loss, _), gradient = self.compiled(*arguments, catalogue(self.inputs), numbers_for(self.config))
        return loss, gradient

    @property
    def compiled(self) -> Any:
        of_run = functools.partial(joint_loss, model=self.model, config=self.config)
        return jax.jit(jax.value_and_grad(of_run, has_aux=True))


def prepared(checkpoint: Path, folder: Path, *overrides: str, calm: bool = True) -> Prepared:
    words = (*TINY, *ONLY_SEARCH, *(CALM if calm else ()), f"text.checkpoint={checkpoint}", *overrides)
    config = load_run(None, words)
    shop = prepare(config.data, log=lambda _: None).shop
    inputs = taught(build_inputs(shop, config, folder, log=lambda _: None), config, lambda _: None)
    model = model_of(config, inputs)
    state = create(model, run_optimiser(config, model), False, config.seed)
    noise = np.random.Generator(np.random.Philox(1)).normal(size=state.bank.shape)
    state = dataclasses.replace(state, params=pretrained(state.params, config.text), bank=jnp.asarray(noise, jnp.float32))
    return Prepared(config, inputs, model, state, StepSource(inputs, config, 10)[0])


def leaves(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


# -------------------------------------------------------------------------------------------------- gradient caching
@pytest.mark.parametrize("loss", ["info_nce", "siglip", "triplet"])
def test_chunks_give_the_loss_and_gradients_of_the_whole_batch(checkpoint: Path, tmp_path: Path, loss: str) -> None:
    words = ("model.heads=none", f"objectives.query_product.loss={loss}", "objectives.query_product.matryoshka=[4, 16]")
    whole = prepared(checkpoint, tmp_path, *words)
    expected, gradient = whole.loss()
    largest = max(1.0, *(np.abs(leaf).max() for leaf in leaves(gradient).values()))
    for chunk in (5, 8) if loss == "info_nce" else (5,):
        config = whole.config.model_copy(update={"text": whole.config.text.model_copy(update={"chunk": chunk})})
        found, parts = dataclasses.replace(whole, config=config).loss()
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
        for (name, a), b in zip(leaves(gradient).items(), leaves(parts).values(), strict=True):
            assert np.abs(a - b).max() <= 1e-5 * largest, name


def test_memory_is_set_by_the_chunk(checkpoint: Path, tmp_path: Path) -> None:
    """Bytes of intermediate results that the compiled step asks for."""

    def bytes_of(batch_size: int, chunk: int) -> int:
        at = prepared(
            checkpoint,
            tmp_path,
            "model.heads=none",
            "objectives.query_product.from_titles=0",
            f"objectives.query_product.batch_size={batch_size}",
            f"text.live={min(batch_size, 64)}",
            f"text.chunk={chunk}",
        )
        arguments = (at.state.params, at.state.bank, at.batch, jax.random.key(1), catalogue(at.inputs), numbers_for(at.config))
        return at.compiled.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    whole, chunked = bytes_of(1024, 0), bytes_of(1024, 32)
    assert chunked < whole / 4


# ------------------------------------------------------------------------------------------------------ what is trained
@pytest.mark.parametrize(
    ("words", "trained"),
    [
        ((), ("embeddings", "layer_0", "layer_1")),
        (("text.tune=frozen",), ()),
        (("text.tune=last", "text.tune_layers=1"), ("layer_1",)),
        (("text.tune=lora", "text.lora={rank: 2, targets: [query, output]}"), ("lora_",)),
    ],
)
def test_only_what_is_tuned_changes(checkpoint: Path, tmp_path: Path, words: tuple[str, ...], trained: tuple[str, ...]) -> None:
    at = prepared(checkpoint, tmp_path, "train.optimiser.warmup_share=0", *words)
    before = leaves(at.state.params)
    optimiser = run_optimiser(at.config, at.model)
    state, _ = build_step(at.model, optimiser, at.config)(
        at.state, at.batch, catalogue(at.inputs), jax.random.key(0), numbers_for(at.config)
    )
    after = leaves(state.params)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    encoder = {name for name in changed if name.startswith("['encoder']")}
    assert all(any(part in name for part in trained) for name in encoder)
    assert all(any(part in name for name in encoder) for part in trained)
    assert any("product" in name for name in changed)  # heads always learn
    held = [name for name in before if name.startswith("['encoder']") and not any(part in name for part in trained)]
    moments = leaves(state.opt_state)
    assert not any(name.endswith(end) for end in held for name in moments), "held parameters have optimiser state"


def test_adapters_start_as_nothing(checkpoint: Path, tmp_path: Path) -> None:
    plain, adapted = (prepared(checkpoint, tmp_path / name, *words) for name, words in (("a", ()), ("b", ("text.tune=lora",))))
    assert float(plain.loss()[0]) == pytest.approx(float(adapted.loss()[0]), abs=1e-6)
    gradient = leaves(adapted.loss()[1])
    assert any(np.any(value) for name, value in gradient.items() if "lora_b" in name)


def test_lower_layers_learn_more_slowly(checkpoint: Path, tmp_path: Path) -> None:
    def moved(decay: float) -> dict[str, np.ndarray]:
        at = prepared(
            checkpoint,
            tmp_path,
            "train.optimiser={name: sgd, schedule: constant, warmup_share: 0, clip_norm: 0}",
            f"train.optimiser.layer_decay={decay}",
        )
        before = leaves(at.state.params)
        optimiser = run_optimiser(at.config, at.model)
        state, _ = build_step(at.model, optimiser, at.config)(
            at.state, at.batch, catalogue(at.inputs), jax.random.key(0), numbers_for(at.config)
        )
        return {name: value - before[name] for name, value in leaves(state.params).items()}

    even, decayed = moved(1.0), moved(0.5)
    for part, factor in (("layer_1']['value", 1.0), ("layer_0']['value", 0.5), ("word_embeddings", 0.25)):
        name = next(name for name in even if part in name and name.endswith(("kernel']", "embedding']")))
        place = np.unravel_index(np.abs(even[name]).argmax(), even[name].shape)
        assert decayed[name][place] == pytest.approx(factor * even[name][place], rel=0.01)


def test_which_parameters_are_trained_by_name() -> None:
    def trained(words: str, *path: str) -> bool:
        text = schema.Text(tune=words, tune_layers=2)  # pyright: ignore[reportArgumentType]
        return is_trained(tuple(jax.tree_util.DictKey(part) for part in path), text, 12)

    assert trained("frozen", "product", "gate", "kernel") and not trained("frozen", "encoder", "layer_11", "query")
    assert trained("last", "encoder", "layer_10", "query") and not trained("last", "encoder", "layer_9", "query")
    assert trained("last", "encoder", "final_norm", "scale") and not trained("last", "encoder", "embeddings", "layer_norm")


# ---------------------------------------------------------------------------------------------------- hard negatives
def write_negatives(file: Path, inputs: Inputs, pairs: list[tuple[int, int]]) -> Path:
    queries, products = inputs.shop.queries, inputs.shop.products
    assert queries is not None and products is not None
    rows = [f"{queries.id[query]}\t{products.id[product]}" for query, product in pairs]
    file.write_text("\n".join(["query\tproduct", *rows]) + "\n", encoding="utf-8")
    return file


def test_hard_negatives_of_a_file(checkpoint: Path, tmp_path: Path) -> None:
    plain = prepared(checkpoint, tmp_path, "model.heads=none", "objectives.query_product.from_titles=0")
    query, product = (int(each) for each in plain.inputs.positives[0])
    wrong = next(row for row in range(80) if not (plain.inputs.positives == (query, row)).all(1).any())
    file = write_negatives(tmp_path / "hard.tsv", plain.inputs, [(query, wrong), (query, product)])
    words = f"objectives.query_product.hard_negatives={{file: '{file}', from_file: 2}}"
    at = prepared(checkpoint, tmp_path, "model.heads=none", "objectives.query_product.from_titles=0", words)
    assert at.inputs.hard_negatives is not None
    assert at.inputs.hard_negatives.tolist() == [[query, wrong]]  # the other one is known to match
    found = next(
        batch
        for step in range(99)
        if (batch := StepSource(at.inputs, at.config, 99)[step])["query_product"]["negative"].max() >= 0
    )
    entry = found["query_product"]
    assert set(entry["negative"].ravel().tolist()) == {-1, wrong} and wrong in found["live"]["rows"]
    known = {(int(q), int(p)) for q, p in at.inputs.positives}
    queries = [next(q for q in range(40) if np.array_equal(at.inputs.query_tokens[q], row)) for row in entry["tokens"]]  # pyright: ignore[reportOptionalSubscript]
    for row, q in enumerate(queries):
        for column, p in enumerate(entry["negative"].ravel()):
            assert p < 0 or entry["known_negative"][row, column] == ((q, int(p)) in known)
    # More to tell apart: the loss is higher with the negatives than without.
    with_them = at.loss(batch=found)[0]
    without = {**found, "query_product": {name: value for name, value in entry.items() if "negative" not in name}}
    assert float(with_them) > float(at.loss(batch=without)[0])


def test_a_bad_file_of_negatives_is_told(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("query\tproduct\nnobody\tp1\n", encoding="utf-8")
    (tmp_path / "columns.tsv").write_text("querry\tproduct\nq1\tp1\n", encoding="utf-8")
    for name, message in (
        ("bad.tsv", r"bad.tsv:2: shop 'demo_shop' has no query of this id: 'nobody'"),
        ("columns.tsv", r"no column 'query'; did you mean 'querry'"),
        ("none.tsv", r"none.tsv: no such file"),
    ):
        with pytest.raises(UserError, match=message):
            words = f"objectives.query_product.hard_negatives={{file: '{tmp_path / name}', from_file: 1}}"
            prepared(checkpoint, tmp_path, words)
    with pytest.raises(UserError, match="file and from_file go together"):
        load_run(None, ["objectives.query_product.hard_negatives.from_file=3"])


def test_mined_negatives_are_near_wrong_and_beyond_the_margin(checkpoint: Path, tmp_path: Path) -> None:
    mined, margin = 3, 0.1
    at = prepared(
        checkpoint,
        tmp_path,
        "model.heads=none",
        f"objectives.query_product.hard_negatives={{mined: {mined}, margin: {margin}}}",
    )
    entry = at.batch["query_product"]
    towers = Towers(at.model, at.state.params, at.state.bank, jax.random.key(0), catalogue(at.inputs), at.config)
    generator = np.random.Generator(np.random.Philox(3))
    query = generator.normal(size=(16, 16)).astype(np.float32)
    product = np.asarray(at.state.bank)[entry["product"]]
    on_device = {name: jnp.asarray(value) for name, value in entry.items()}
    vectors, hidden = query_product._mined(towers, on_device, jnp.asarray(query), jnp.asarray(product))
    unit = np.asarray(normalise(at.state.bank))
    cosine = np.asarray(normalise(jnp.asarray(query))) @ unit.T
    own = (np.asarray(normalise(jnp.asarray(query))) * np.asarray(normalise(jnp.asarray(product)))).sum(1)
    columns = [int(np.abs(unit - row).sum(1).argmin()) for row in np.asarray(normalise(vectors))]
    known = [set(row[row >= 0].tolist()) for row in entry["positive"]]
    for row in range(16):
        allowed = [p for p in range(80) if p not in known[row] and cosine[row, p] < own[row] - margin and at.inputs.has_text[p]]
        best = sorted(allowed, key=lambda p: -cosine[row, p])[:mined]
        mine = slice(row * mined, row * mined + len(best))
        assert columns[mine] == best and not np.asarray(hidden)[row, mine].any()
        for column, p in enumerate(columns):
            if p in known[row] or cosine[row, p] >= own[row] - margin + 1e-6:
                assert hidden[row, column]


# -------------------------------------------------------------------------------------------- masked words, distillation
def test_masked_words_learn_the_checkpoints_head(checkpoint: Path, tmp_path: Path) -> None:
    at = prepared(checkpoint, tmp_path, "objectives.masked_words={weight: 1, batch_size: 16, share: 0.3}")
    assert at.inputs.tokenizer is not None and at.inputs.product_tokens is not None
    entry = at.batch["masked_words"]
    for row, place, target in zip(entry["tokens"], entry["place"], entry["target"], strict=True):
        original = row.copy()
        original[place[target >= 0]] = target[target >= 0]
        assert (at.inputs.product_tokens == original).all(1).any()
        inner = int((row >= 0).sum()) - 2
        assert (target >= 0).sum() == min(max(1, round(0.3 * inner)), inner)
        assert not np.isin(place[target >= 0], (0, (row >= 0).sum() - 1)).any()
    head = TextEncoder.from_pretrained(checkpoint).checkpoint.head
    assert np.array_equal(at.state.params["masked_words"]["bias"], head["bias"])  # pyright: ignore[reportOptionalSubscript]
    losses, optimiser = [], run_optimiser(at.config, at.model)
    step, state = build_step(at.model, optimiser, at.config), at.state
    for number in range(12):
        batch = StepSource(at.inputs, at.config, 99)[number]
        state, metrics = step(state, batch, catalogue(at.inputs), jax.random.key(0), numbers_for(at.config))
        losses.append(float(metrics["loss/masked_words"]))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_warm_up_steps_encode_only_their_own_texts(checkpoint: Path, tmp_path: Path) -> None:
    words = ("objectives.masked_words={weight: 1, end: 0.5}", "objectives.query_product.begin=0.5", "train.steps=10")
    at = prepared(checkpoint, tmp_path, *words)
    source = StepSource(at.inputs, at.config, 10)
    assert list(source[0]) == ["masked_words"] and list(source[9]) == ["query_product", "live"]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(checkpoint: Path, tmp_path: Path) -> None:
    for loss in ("cosine", "kl"):
        at = prepared(
            checkpoint,
            tmp_path,
            "text.max_length=32",
            f"objectives.distillation={{weight: 1, teacher: '{checkpoint}', loss: {loss}, batch_size: 16}}",
            "objectives.query_product.weight=0",
            "objectives.masked_words.weight=0",
        )
        value, gradient = at.loss()
        assert float(value) == pytest.approx(0.0, abs=1e-5)
        assert max(np.abs(leaf).max() for leaf in leaves(gradient["encoder"]).values()) < 1e-3
    wider = write_tiny_bert(tmp_path / "wide", width=24)
    with pytest.raises(UserError, match="the teacher's have 24 numbers, the encoder's 16; use kl"):
        prepared(checkpoint, tmp_path, f"objectives.distillation={{weight: 1, teacher: '{wider}'}}")


# ---------------------------------------------------------------------------------------------------- runs from end to end
def inputs_of(home: RunFolder) -> Inputs:
    """What the run read: a loaded model no longer holds it."""
    config = home.config()
    return build_inputs(prepare(config.data, log=lambda _: None).shop, config, home.tokenizer, log=lambda _: None)


def test_zero_steps_search_with_the_checkpoint_as_it_is(tmp_path: Path) -> None:
    checkpoint = write_tiny_bert(tmp_path / "tiny", settings=Settings("cls", normalise=True, max_length=32))
    words = (*TINY, *ONLY_SEARCH, f"text.checkpoint={checkpoint}", "text.tune=frozen", "model.heads=none")
    config = load_run(None, [*words, "train.steps=0", "text.query_prompt='ask: '", "text.max_length=32"])
    home = pipeline.run(config, tmp_path / "run", "zero", say=lambda _: None)
    assert home.results()["test"]["search"]["ndcg@10"] > 0
    assert len(home.provenance()["checkpoints"]["text.checkpoint"]) == 64
    encoder = TextEncoder.from_pretrained(checkpoint)
    shutil.rmtree(checkpoint)  # the run folder is enough
    model = fusionjax.load(home.path)
    inputs = inputs_of(home)
    expected = encoder.encode(texts_read(inputs, config))
    assert np.abs(model.unit - expected)[inputs.has_text].max() < 1e-5
    assert np.abs(model.query_vector("red shoe") - encoder.encode(["ask: red shoe"])[0]).max() < 1e-5
    assert len(model.search("red shoe", 3)) == 3


def test_a_trained_run_resumes_without_its_checkpoint_and_goes_back_out(tmp_path: Path) -> None:
    """On four devices, each of which goes through its own rows chunk by chunk."""
    checkpoint = write_tiny_bert(tmp_path / "tiny")
    words = ("text.tune=lora", "model.heads=none", "text.chunk=8", "objectives.masked_words.weight=1", "train.steps=4")
    config = load_run(None, [*TINY, *ONLY_SEARCH, f"text.checkpoint={checkpoint}", *words])

    def killed(step: int, value: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # in the validation of step 3, before its state is saved
        pipeline.validate_only(config, tmp_path / "run", "x", say=lambda _: None, on_validation=killed)
    shutil.rmtree(checkpoint)
    said: list[str] = []
    home = pipeline.run(config, tmp_path / "run", "x", say=said.append)
    assert "resuming at step 2 of 4" in said
    assert main(["export", str(home.path), str(tmp_path / "out")]) == 0
    model, encoder = fusionjax.load(home.path), TextEncoder.from_pretrained(tmp_path / "out")
    inputs = inputs_of(home)
    expected = encoder.encode(texts_read(inputs, config))
    assert np.abs(model.unit - expected)[inputs.has_text].max() < 1e-5
    assert encoder.checkpoint.head is not None and len(encoder.fill_mask(["red [MASK]"], 3)[0][0]) == 3
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a checkpoint folder"):
        export(model, tmp_path / "taken")


def test_what_does_not_go_together_is_told(checkpoint: Path, tmp_path: Path) -> None:
    for words, message in (
        (["text.tune=lora"], "text.tune: lora needs text.checkpoint"),
        (["model={heads: none, product: {sources: [text]}}"], "heads: none has no projections for objectives.alignment"),
        (["model.heads=none"], r"heads none needs product.sources \[text\]"),
        (["text.lora.targets=[querry]"], "target 'querry' is none of query"),
        (["objectives.distillation.weight=1"], "teacher: name a checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            load_run(None, words)
    with pytest.raises(UserError, match=r"text.max_length: 65 is more than the checkpoint's 64 positions"):
        prepared(checkpoint, tmp_path, "text.max_length=65")
    with pytest.raises(UserError, match="no such folder"):
        prepared(tmp_path / "nowhere", tmp_path / "x")


# -------------------------------------------------------------------------------------------------------- packed rows
def test_packed_rows_give_the_loss_and_gradients_of_padded_ones(checkpoint: Path, tmp_path: Path) -> None:
    words = ("model.heads=none", f"objectives.distillation={{weight: 1, teacher: '{checkpoint}', batch_size: 16}}")
    padded, packed = (
        prepared(checkpoint, tmp_path / name, *words, f"text.pack={pack}") for name, pack in (("a", "false"), ("b", "true"))
    )
    for name in ("query_product", "live", "distillation"):
        rows, texts = packed.batch[name]["tokens"], padded.batch[name]["tokens"]
        assert np.array_equal(np.sort(rows[rows >= 0]), np.sort(texts[texts >= 0]))
        assert (rows >= 0).sum() == (packed.batch[name]["text"] >= 0).sum()
    expected, gradient = padded.loss()
    found, parts = packed.loss()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for (name, a), b in zip(leaves(gradient).items(), leaves(parts).values(), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * max(1.0, np.abs(a).max()), name


def test_rows_that_cannot_be_packed_are_cut(checkpoint: Path, tmp_path: Path) -> None:
    at = prepared(checkpoint, tmp_path, "text.max_length=32", "text.chunk=8", "text.pack=true")
    entry = at.batch["query_product"]
    longest = int((entry["tokens"] >= 0).sum(1).max())
    assert "text" not in entry and longest <= entry["tokens"].shape[1] <= -(-longest // 8) * 8


def test_the_number_of_packed_shapes_is_small() -> None:
    generator, shapes = np.random.default_rng(0), set()
    for _ in range(300):
        rows = np.full((64, 40), -1, np.int32)
        for row, length in enumerate(generator.integers(2, 40, 64)):
            rows[row, :length] = 7
        found = packed_rows(rows, 40, multiple=4)
        assert found["tokens"].shape[0] % 4 == 0 and found["tokens"].shape[1] == 64
        assert (found["tokens"] >= 0).sum() == (rows >= 0).sum()
        shapes.add(found["tokens"].shape)
    assert len(shapes) <= 4
