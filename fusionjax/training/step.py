"""One optimiser step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fusionjax.config import schema
from fusionjax.models.joint import JointModel
from fusionjax.objectives.towers import Catalogue
from fusionjax.training.loss import joint_loss
from fusionjax.training.state import TrainState

Metrics = dict[str, jax.Array]


Step = Callable[[TrainState, Any, Catalogue, jax.Array], tuple[TrainState, Metrics]]


def build_step(
    model: JointModel, optimiser: optax.GradientTransformation, config: schema.Run, mesh: Mesh | None = None
) -> Step:
    """`step_of`, compiled, its state donated: once for each set of objectives that meet in a step and each history bucket."""
    return jax.jit(step_of(model, optimiser, config, mesh), donate_argnums=0)


def step_of(model: JointModel, optimiser: optax.GradientTransformation, config: schema.Run, mesh: Mesh | None = None) -> Step:
    """Returns `step(state, batch, catalogue, key) -> (state, metrics)`, not compiled.

    Metrics are device scalars: `loss`, `gradient_norm` and `loss/OBJECTIVE`. Randomness is `fold_in(key, step)`, where `key` is
    the run's `jax.random.key(seed)`: a resumed run draws what an uninterrupted one draws. The seed is in the key alone, so that
    runs that differ in nothing else share one program.
    """
    accumulate = config.train.accumulate
    loss_and_gradient = jax.value_and_grad(joint_loss, has_aux=True)

    def gradients(params: Any, bank: jax.Array, batch: Any, key: jax.Array, catalogue: Catalogue) -> Any:
        if accumulate == 1:
            (loss, (losses, bank)), gradient = loss_and_gradient(params, bank, batch, key, catalogue, model, config, mesh)
            return loss, losses, bank, gradient

        def body(carry: Any, micro: Any) -> Any:
            bank, total = carry
            part, batch = micro
            (loss, (losses, bank)), gradient = loss_and_gradient(
                params, bank, batch, jax.random.fold_in(key, part), catalogue, model, config, mesh
            )
            return (bank, jax.tree.map(jnp.add, total, gradient)), (loss, losses)

        start = (bank, jax.tree.map(jnp.zeros_like, params))
        (bank, total), (loss, losses) = jax.lax.scan(body, start, (jnp.arange(accumulate), batch))
        mean = jax.tree.map(lambda x: x.mean(), (loss, losses))
        return *mean, bank, jax.tree.map(lambda x: x / accumulate, total)

    def step(state: TrainState, batch: Any, catalogue: Catalogue, key: jax.Array) -> tuple[TrainState, Metrics]:
        drawn = jax.random.fold_in(key, state.step)
        loss, losses, bank, gradient = gradients(state.params, state.bank, batch, drawn, catalogue)
        updates, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        metrics.update({f"loss/{name}": value for name, value in losses.items()})
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state, bank=bank), metrics

    return step
