"""Training of one graph-embedding run, or of several that differ in seed (or in numbers of the loss) in one program.

Pass by pass: the compiled epoch, then every few passes a validation: the best parameters kept, the learning rate lowered on a
plateau, a checkpoint. What is random is a function of seed and step, so a run killed and started again ends with the bits of
one that was not. Several runs are one stack of states (`parallel.each_run`); each keeps its own draws, best checkpoint, folder.
"""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fusionjax.config import schema
from fusionjax.config.kge import Kge, SettingName
from fusionjax.errors import UserError
from fusionjax.evaluation.ranking import NaNScore
from fusionjax.training.epochs import Examples, build_epoch, init_state
from fusionjax.kge.evaluate import Ranking
from fusionjax.objectives.link_prediction.graph import train_graph
from fusionjax.models.entities import Features, EntityModel, graph_model
from fusionjax.objectives.link_prediction.loss import hyper_of
from fusionjax.objectives.link_prediction.strategies import Strategy, strategy_of
from fusionjax.runs import RunFolder
from fusionjax.training import parallel
from fusionjax.training.checkpoint import Checkpoints
from fusionjax.training.log import Bar, MetricsLog
from fusionjax.training.loop import Interrupted, NonFiniteLoss, OnValidation, Say, Trained, prefixed, sigterm
from fusionjax.training.state import TrainState
from fusionjax.training.trackers import Trackers

PIECE = 1000
"""Steps of a program at most: a longer pass is cut, so that the progress bar moves and SIGTERM is heard."""


@dataclasses.dataclass
class Memory:
    """What a resumed run must know besides the state; JSON, saved with each checkpoint."""

    rate: float
    best: float | None = None
    best_step: int = 0
    since_best: int = 0
    on_plateau: int = 0
    stopped: bool = False
    ended: int | None = None
    """The step at which it stopped."""
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Losses of the pass that is under way, where a checkpoint lies within one."""


@dataclasses.dataclass
class Member:
    """One run of a stack."""

    config: schema.Run
    home: RunFolder
    checkpoints: Checkpoints
    memory: Memory
    trackers: Trackers | None
    say: Say
    log: MetricsLog | None = None
    failure: NonFiniteLoss | None = None

    @property
    def trains(self) -> bool:
        return self.failure is None and not self.memory.stopped


def check_together(configs: Sequence[schema.Run]) -> None:
    """Raises `UserError` unless the runs differ in seeds and in numbers of the loss alone."""
    first = configs[0]
    for config in configs[1:]:
        plain = _without_hyper(config.model_copy(update={"seed": first.seed}))
        if plain != _without_hyper(first):
            known = ", ".join(get_args(SettingName))
            raise UserError(f"runs trained in one program may differ in seed and, of kge, in {known} only")
        for name, value in hyper_of(first.kge).items():
            if (value == 0) != (hyper_of(config.kge)[name] == 0):
                raise UserError(f"runs trained in one program: {name} is 0 in one and not in the other")


def _without_hyper(config: schema.Run) -> dict[str, Any]:
    values = config.model_dump(mode="json", exclude={"track"})
    for key in get_args(SettingName):
        *parts, last = key.split(".")
        here = values["kge"]
        for part in parts:
            here = here[part]
        here.pop(last)
    return values


def train_graphs(
    configs: Sequence[schema.Run],
    train: np.ndarray,
    sizes: tuple[int, int],
    features: Features,
    ranking: Ranking | None,
    homes: Sequence[RunFolder],
    say: Say = print,
    trackers: Sequence[Trackers] = (),
    on_validation: OnValidation | None = None,
) -> list[Trained | NonFiniteLoss]:
    """Trains every run to its end, from its newest checkpoint if there is one.

    Args:
      configs: one a run, equal but for what `check_together` allows.
      train: int [n, 3] training triples.
      sizes: (entities, relations) of the graph.
      ranking: of the validation triples; None: there are none, the last parameters count as the best.
      homes, trackers: one a run (trackers may be left out).
      on_validation: of a lone run: told each step and value; training ends where it returns true.

    Returns:
      For each run how training ended; the error where its loss was not finite, which stops that run alone.

    Raises:
      UserError: settings that do not fit the graph, or differ too much.
      Interrupted: after SIGTERM, once the states are saved.
    """
    check_together(configs)
    kge = configs[0].kge
    if not len(train):
        raise UserError("the graph has no training triple")
    try:
        model = graph_model(kge, *sizes, features)
        graph = train_graph(train, *sizes, kge)
    except ValueError as error:
        raise UserError(f"kge: {error}") from None
    way = strategy_of(model, kge, graph)
    with contextlib.ExitStack() as stack, sigterm() as stop:
        members = []
        for place, (config, home) in enumerate(zip(configs, homes, strict=True)):
            checkpoints = Checkpoints(home.checkpoints)
            stack.callback(checkpoints.close)
            name = f"seed {config.seed}" if len({one.seed for one in configs}) > 1 else home.path.name
            tell = say if len(configs) == 1 else prefixed(say, name)
            tracked = trackers[place] if trackers else None
            members.append(Member(config, home, checkpoints, Memory(config.kge.optimiser.learning_rate), tracked, tell))
        loop = _Loop(members, model, kge, way, graph, features, ranking, say, on_validation, stop)
        loop.run()
        parameters = sum(leaf.size for leaf in jax.tree.leaves(loop.state["params"])) // len(members)
    return [
        member.failure or Trained(member.memory.ended or loop.total, member.memory.best_step, member.memory.stopped, parameters)
        for member in members
    ]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which device holds what. Several runs: whole runs to each device, if they divide evenly; nothing is exchanged then.

    A lone run: each batch is split over the devices, everything else is on all of them; not so on several CPU devices, whose
    collectives can wait for each other for ever inside a compiled loop.
    """

    mesh: Any
    by_run: bool
    by_batch: bool

    @classmethod
    def of(cls, runs: int, batch_size: int) -> "Placement":
        mesh = parallel.build_mesh()
        by_run = runs > 1 and runs % mesh.size == 0
        by_batch = runs == 1 and batch_size % mesh.size == 0 and mesh.devices.flat[0].platform != "cpu"
        return cls(mesh, by_run, by_batch)

    @property
    def apart(self) -> bool:
        """Whether runs of a stack take turns: on one CPU device."""
        return not self.by_run and self.mesh.devices.flat[0].platform == "cpu"

    def _put(self, tree: Any, *spec: str | None) -> Any:
        if not (self.by_run or self.by_batch):
            return jax.device_put(tree, self.mesh.devices.flat[0])
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(*spec)))

    def everywhere(self, tree: Any) -> Any:
        return self._put(tree)

    def states(self, tree: Any) -> Any:
        """What each run has of its own."""
        return self._put(tree, *((parallel.AXIS,) if self.by_run else ()))

    def orders(self, chosen: np.ndarray) -> jax.Array:
        """int32 [steps, b], or [runs, steps, b]."""
        return self._put(chosen, *((parallel.AXIS,) if self.by_run else (None, parallel.AXIS)))


class _Loop:
    """Passes over the triples for a stack of runs; a lone run is not stacked."""

    def __init__(
        self,
        members: list[Member],
        model: EntityModel,
        kge: Kge,
        way: Strategy,
        graph: Any,
        features: Features,
        ranking: Ranking | None,
        say: Say,
        on_validation: OnValidation | None,
        stop: threading.Event,
    ) -> None:
        self.members, self.model, self.kge = members, model, kge
        self.ranking, self.say, self.on_validation, self.stop = ranking, say, on_validation, stop
        self.alone = len(members) == 1
        self.examples = Examples.of(kge, graph)
        self.steps = self.examples.steps
        self.total = self.steps * kge.epochs
        self.place = Placement.of(len(members), kge.batch_size)
        epoch = build_epoch(model, kge, way)
        create = lambda seed: init_state(model, kge, seed)  # noqa: E731
        if not self.alone:
            epoch = parallel.each_run(epoch, (0, None, None, 0, 0, 0), apart=self.place.apart)
            create = jax.vmap(create)
        self.graph, self.features = self.place.everywhere((graph, features))
        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.create = jax.jit(create)
        self.take = jax.jit(lambda tree, row: jax.tree.map(lambda leaf: leaf[row], tree))
        self.finite = jax.jit(lambda tree: jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])))
        self.blend = jax.jit(lambda old, new, share: jax.tree.map(lambda a, b: a + share * (b - a), old, new))
        self.sums: dict[str, Any] = {}

    # -------------------------------------------------------------------------------------------------------- one pass
    def run(self) -> None:
        seeds = [member.config.seed for member in self.members]
        self.state = self.create(jnp.int32(seeds[0]) if self.alone else jnp.asarray(seeds, jnp.int32))
        self.average = jax.tree.map(jnp.copy, self.state["params"]) if self.kge.average is not None else None
        done = self._resume()
        self.state, self.average = self.place.states((self.state, self.average))
        keys = [jax.random.key(seed) for seed in seeds]
        self.keys = self.place.states(keys[0] if self.alone else jnp.stack(keys))
        with contextlib.ExitStack() as stack, Bar(self.total, done, self.say) as bar:
            for member in self.members:
                member.log = MetricsLog(member.home, done, member.trackers)
                stack.callback(member.log.close)
            while done < self.total and any(member.trains for member in self.members) and not self.stop.is_set():
                done = self._pass(done, bar)
        if self.stop.is_set() and done < self.total:
            raise Interrupted(f"stopped by SIGTERM after step {done} of {self.total}; the same command goes on from there")

    def _pass(self, done: int, bar: Bar) -> int:
        """The rest of a pass over the triples, and what follows it; returns the steps done."""
        at = done // self.steps
        orders = [self.examples.order(member.config.seed, at) for member in self.members]
        chosen = self.place.orders(orders[0] if self.alone else np.stack(orders))
        while done < (at + 1) * self.steps:
            first = done % self.steps
            piece = min(PIECE, self.steps - first)
            part = chosen[..., first : first + piece, :]
            self.state, more = self.epoch(self.state, self.graph, self.features, self._hyper(), part, self.keys)
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in more.items()}
            done += piece
            bar.step(done)
            if self.stop.is_set():
                break
        whole = done % self.steps == 0
        if whole:
            means = {name: np.atleast_1d(np.asarray(value)) / self.steps for name, value in self.sums.items()}
            self.sums = {}
            self._record(done, means, bar)
            self._take_average(done // self.steps)
        if whole and self._validates(done // self.steps):
            self._validate(done)
            self._save(done)
        elif self.stop.is_set():
            self._save(done)
        return done

    def _take_average(self, epochs: int) -> None:
        """Epoch k of n counts for `average`^(n − k), over the sum of these; where the parameters started counts for nothing."""
        keep = self.kge.average
        if keep is not None:
            self.average = self.blend(self.average, self.state["params"], (1 - keep) / (1 - keep**epochs))

    def _validates(self, epochs: int) -> bool:
        return epochs % self.kge.validate_every == 0 or epochs == self.kge.epochs

    def _hyper(self) -> dict[str, jax.Array]:
        rows = [{**hyper_of(one.config.kge), "learning_rate": one.memory.rate} for one in self.members]
        if self.alone:
            return self.place.states({name: jnp.float32(value) for name, value in rows[0].items()})
        return self.place.states({name: jnp.asarray([row[name] for row in rows], jnp.float32) for name in rows[0]})

    # ------------------------------------------------------------------------------------------------- what follows it
    def _record(self, done: int, means: dict[str, np.ndarray], bar: Bar) -> None:
        """Losses of a pass, of every run; one that is not finite fails its run."""
        for place, member in enumerate(self.members):
            if not member.trains:
                continue
            row = {("loss" if name == "loss" else f"loss/{name}"): float(value[place]) for name, value in means.items()}
            bad = [name for name, value in row.items() if not math.isfinite(value)]
            if bad:
                part = next((name for name in bad if name != "loss"), "loss")
                self._fail(member, done, f"{part.removeprefix('loss/')} is not finite ({row[part]})")
                continue
            assert member.log is not None
            member.log.write({"step": done, "kind": "train", "epoch": done // self.steps, **row})
            member.log.throughput(done, bar.rate)
        losses = means["loss"][np.isfinite(means["loss"])]
        if len(losses):
            bar.loss(float(losses.mean()))

    def _fail(self, member: Member, done: int, what: str) -> None:
        kept = member.checkpoints.latest_step()
        member.failure = NonFiniteLoss(
            f"step {done}: {what}; last good checkpoint: {'none yet' if kept is None else f'step {kept}'}. "
            "Lower kge.optimiser.learning_rate"
        )
        if self.alone:
            raise member.failure
        member.say(f"stopped, the others go on: {member.failure}")

    def _validate(self, done: int) -> None:
        """Measures every run that trains, keeps its best parameters, lowers its learning rate, counts its patience."""
        optimiser = self.kge.optimiser
        for place, member in enumerate(self.members):
            if not member.trains:
                continue
            memory = member.memory
            state = self._member_state(place)
            state["params"] = state.get("average", state["params"])
            if not self.finite(state["params"]):  # since the last steps of the pass, whose losses may still have been
                self._fail(member, done, "a parameter is not finite")
                continue
            try:
                metrics = self.ranking.metrics(self.model, state["params"], self.features) if self.ranking is not None else {}
            except NaNScore as error:
                self._fail(member, done, f"validation: {error}")
                continue
            value = metrics.get("mrr/unseen" if self.kge.unseen else "mrr", 0.0)
            better = memory.best is None or value > memory.best or not metrics
            if better:
                memory.best, memory.best_step, memory.since_best, memory.on_plateau = value, done, 0, 0
                member.checkpoints.save_best(_train_state(state), {"selected": value, "step": done})
            else:
                memory.since_best += 1
                memory.on_plateau += 1
                if optimiser.schedule == "plateau" and memory.on_plateau > optimiser.wait:
                    memory.rate, memory.on_plateau = memory.rate * optimiser.factor, 0
                memory.stopped = bool(self.kge.patience) and memory.since_best >= self.kge.patience
            assert member.log is not None
            shown = {f"link_prediction/{name}": number for name, number in metrics.items() if math.isfinite(number)}
            row = {"step": done, "kind": "valid", "selected": value, "best": better, "learning_rate": memory.rate}
            member.log.write({**row, **shown})
            epochs = f"epoch {done // self.steps} (step {done})"
            asked = " of unseen targets" if self.kge.unseen else ""
            member.say(f"{epochs}: validation MRR{asked} {value:.4f}{' (best)' if better else ''}")
            if self.on_validation is not None and self.on_validation(done, value):
                memory.stopped = True
            if memory.stopped:
                memory.ended = done

    def _member_state(self, place: int) -> dict[str, Any]:
        """Of one run: the state, with the `average` of its parameters where one is wanted."""
        whole = self.state if self.average is None else {**self.state, "average": self.average}
        return dict(whole) if self.alone else self.take(whole, place)

    # ------------------------------------------------------------------------------------------------------ checkpoints
    def _save(self, done: int) -> None:
        sums = {name: np.atleast_1d(np.asarray(value)) for name, value in self.sums.items()}
        for place, member in enumerate(self.members):
            member.memory.sums = {name: float(value[place]) for name, value in sums.items()}
            if member.failure is None:
                member.checkpoints.save(_train_state(self._member_state(place)), dataclasses.asdict(member.memory))

    def _resume(self) -> int:
        """Restores every run at the newest step that all have; returns it. A run that is ahead goes back a checkpoint."""
        step = max(set.intersection(*(member.checkpoints.steps() for member in self.members)), default=0)
        if not step:
            return 0
        states, averages = [], []
        for place, member in enumerate(self.members):
            restored = member.checkpoints.restore(_train_state(self._member_state(place)), step)
            assert restored is not None
            state, memory = restored
            member.memory = Memory(**memory)
            opt: Any = state.opt_state
            averages.append(opt.pop("average", None))
            states.append({"params": state.params, "opt": opt, "step": state.step})
        if self.average is not None:
            self.average = averages[0] if self.alone else jax.tree.map(lambda *leaves: jnp.stack(leaves), *averages)
        sums = [{name: np.float32(value) for name, value in member.memory.sums.items()} for member in self.members]
        self.sums = sums[0] if self.alone else {name: jnp.stack([own[name] for own in sums]) for name in sums[0]}
        self.state = states[0] if self.alone else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self.say(f"resuming at step {step} of {self.total}")
        return step


def _train_state(state: dict[str, Any]) -> TrainState:
    """As checkpoints hold it; there is no text bank (Orbax saves no empty array)."""
    more = {"average": state["average"]} if "average" in state else {}
    return TrainState(state["step"], state["params"], state["opt"] | more, jnp.zeros((1, 1), jnp.float32))
