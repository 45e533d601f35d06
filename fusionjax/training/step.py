"""One optimiser step, jit-compiled, its state donated."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fusionjax.config import schema
from fusionjax.models.joint import JointModel
from fusionjax.training.loss import joint_loss
from fusionjax.training.state import Catalogue, TrainState

Metrics = dict[str, jax.Array]


def build_step(
    model: JointModel, optimiser: optax.GradientTransformation, config: schema.Run
) -> Callable[[TrainState, Any, Catalogue], tuple[TrainState, Metrics]]:
    """Returns `step(state, batch, catalogue) -> (state, metrics)`.

    Metrics are device scalars: `loss`, `gradient_norm` and `loss/OBJECTIVE`. It compiles once for each set of objectives that
    meet in a step and each history bucket. Randomness is `fold_in(key(seed), step)`: a resumed run draws what an uninterrupted
    one draws.
    """
    accumulate = config.train.accumulate
    loss_and_gradient = jax.value_and_grad(joint_loss, has_aux=True)

    def gradients(params: Any, bank: jax.Array, batch: Any, key: jax.Array, catalogue: Catalogue) -> Any:
        if accumulate == 1:
            (loss, (losses, bank)), gradient = loss_and_gradient(params, bank, batch, key, catalogue, model, config)
            return loss, losses, bank, gradient

        def body(carry: Any, micro: Any) -> Any:
            bank, total = carry
            part, batch = micro
            (loss, (losses, bank)), gradient = loss_and_gradient(
                params, bank, batch, jax.random.fold_in(key, part), catalogue, model, config
            )
            return (bank, jax.tree.map(jnp.add, total, gradient)), (loss, losses)

        start = (bank, jax.tree.map(jnp.zeros_like, params))
        (bank, total), (loss, losses) = jax.lax.scan(body, start, (jnp.arange(accumulate), batch))
        mean = jax.tree.map(lambda x: x.mean(), (loss, losses))
        return *mean, bank, jax.tree.map(lambda x: x / accumulate, total)

    def step(state: TrainState, batch: Any, catalogue: Catalogue) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        loss, losses, bank, gradient = gradients(state.params, state.bank, batch, key, catalogue)
        updates, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        metrics.update({f"loss/{name}": value for name, value in losses.items()})
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state, bank=bank), metrics

    return jax.jit(step, donate_argnums=0)
