"""Product, query and user towers: each ends in the shared space of width p, where similarity is the cosine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

RECENCY_BUCKETS = 32
"""Powers of two of seconds: the last bucket holds everything above 68 years."""


class ProductTower(nn.Module):
    """Gated fusion of a text vector and an entity vector; a learned vector stands in for whichever is missing."""

    dim: int
    sources: tuple[str, ...]
    align: bool
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        for source in ("text", "entity"):
            if source in self.sources or self.align:
                setattr(self, f"{source}_projection", nn.Dense(self.dim, dtype=self.dtype))
                setattr(self, f"{source}_norm", nn.LayerNorm(dtype=self.dtype))
                setattr(self, f"{source}_missing", self.param(f"{source}_missing", nn.initializers.normal(0.02), (self.dim,)))
        if len(self.sources) == 2:
            self.gate = nn.Dense(self.dim, dtype=self.dtype)

    def side(self, source: str, vectors: Float[Array, "b d"] | None, present: Bool[Array, "b"]) -> Float[Array, "b p"]:
        """One source's part of the product vector, in the shared space."""
        if vectors is None:
            raise ValueError(f"the product tower reads '{source}', and got none")
        part = getattr(self, f"{source}_norm")(getattr(self, f"{source}_projection")(vectors)).astype(jnp.float32)
        return jnp.where(present[:, None], part, getattr(self, f"{source}_missing")[None])

    def __call__(
        self,
        text: Float[Array, "b d"] | None,
        entity: Float[Array, "b e"] | None,
        has_text: Bool[Array, "b"],
        has_entity: Bool[Array, "b"],
    ) -> Float[Array, "b p"]:
        """Product vectors (not normalised). A source that the tower does not use may be `None`."""
        if len(self.sources) == 1:
            if "text" in self.sources:
                return self.side("text", text, has_text)
            return self.side("entity", entity, has_entity)
        text_part, entity_part = self.side("text", text, has_text), self.side("entity", entity, has_entity)
        flags = jnp.stack([has_text, has_entity], axis=1).astype(text_part.dtype)
        gate = nn.sigmoid(self.gate(jnp.concatenate([text_part, entity_part, flags], axis=1))).astype(jnp.float32)
        return gate * text_part + (1.0 - gate) * entity_part


class QueryTower(nn.Module):
    """A query's text vector → the shared space.

    Where products have text, a query is read as a title is (same encoder, same projection: words match from the first step)
    plus a learned correction that starts at zero, for queries are not titles. Elsewhere the correction is all there is.
    """

    dim: int
    shared: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, text: Float[Array, "b d"], as_title: Float[Array, "b p"] | None) -> Float[Array, "b p"]:
        if not self.shared:
            x = nn.Dense(self.dim, dtype=self.dtype, name="projection")(text)
            return nn.LayerNorm(dtype=self.dtype, name="norm")(x).astype(jnp.float32)
        if as_title is None:
            raise ValueError("a query tower that shares the products' projection needs the query read as a title")
        correction = nn.Dense(self.dim, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="projection")(text)
        return as_title + correction.astype(jnp.float32)


class UserBlock(nn.Module):
    """Pre-norm transformer block with an additive attention bias."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l p"], bias: Float[Array, "b h l l"], mask: Bool[Array, "b 1 l l"], deterministic: bool
    ) -> Float[Array, "b l p"]:
        dim = x.shape[-1]
        y = nn.LayerNorm(dtype=self.dtype)(x)
        split = (*x.shape[:2], self.heads, dim // self.heads)
        query, key, value = (nn.Dense(dim, dtype=self.dtype, name=name)(y).reshape(split) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(query, key, value, bias=bias.astype(query.dtype), mask=mask).reshape(x.shape)
        y = nn.Dense(dim, dtype=self.dtype, name="attention_output")(y)
        x = x + nn.Dropout(self.dropout)(y, deterministic=deterministic)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.gelu(nn.Dense(4 * dim, dtype=self.dtype, name="intermediate")(y))
        y = nn.Dense(dim, dtype=self.dtype, name="output")(y)
        return x + nn.Dropout(self.dropout)(y, deterministic=deterministic)


class UserTower(nn.Module):
    """A causal transformer over [start, event 1, …, event l] (SASRec, Kang & McAuley 2018): output i foretells event i + 1.

    The start token carries the profile, so that a user without events has a vector too. Order enters as learned positions, kind
    as an embedding added to the product's vector, recency as an attention bias by log₂ of the seconds between two events
    (measured from the last event known, so the time of what is foretold stays unknown).
    """

    dim: int
    history: int
    layers: int
    heads: int
    dropout: float
    n_kinds: int
    """0: kinds are not told apart."""
    profile_sizes: tuple[int, ...]
    """Values of each profile field, 0 being 'unknown'."""
    recency: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        products: Float[Array, "b l p"],
        kind: Int[Array, "b l"],
        time: Int[Array, "b l"],
        valid: Bool[Array, "b l"],
        profile: Int[Array, "b f"],
        deterministic: bool = True,
    ) -> Float[Array, "b m p"]:
        """User vectors after 0, 1, …, l events (m = l + 1), not normalised. `time`: whole seconds, int32."""
        init = nn.initializers.normal(0.02)
        start = self.param("start", init, (self.dim,))[None]
        for field, size in enumerate(self.profile_sizes):
            start = start + nn.Embed(size, self.dim, embedding_init=init, name=f"profile_{field}")(profile[:, field])
        start = jnp.broadcast_to(start, (products.shape[0], self.dim))
        x = products
        if self.n_kinds:
            x = x + nn.Embed(self.n_kinds, self.dim, embedding_init=init, name="kind")(kind)
        x = jnp.concatenate([start[:, None], x], axis=1)
        x = x + self.param("position", init, (self.history + 1, self.dim))[None, : x.shape[1]]
        x = nn.Dropout(self.dropout)(nn.LayerNorm(dtype=self.dtype, name="input_norm")(x), deterministic=deterministic)

        here = jnp.concatenate([jnp.ones_like(valid[:, :1]), valid], axis=1)
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))[None] & here[:, None, :]
        bias = jnp.zeros((1, 1, 1, 1), jnp.float32)
        if self.recency:
            clock = jnp.concatenate([time[:, :1], time], axis=1)
            gap = jnp.maximum(clock[:, :, None] - clock[:, None, :], 0).astype(jnp.float32)
            bucket = jnp.minimum(jnp.log2(gap + 1.0).astype(jnp.int32), RECENCY_BUCKETS - 1)
            bias = nn.Embed(RECENCY_BUCKETS, self.heads, embedding_init=init, name="recency")(bucket).transpose(0, 3, 1, 2)
        bias = jnp.broadcast_to(bias, (x.shape[0], self.heads, x.shape[1], x.shape[1]))
        for layer in range(self.layers):
            x = UserBlock(self.heads, self.dropout, self.dtype, name=f"layer_{layer}")(x, bias, mask[:, None], deterministic)
        return nn.LayerNorm(dtype=self.dtype, name="output_norm")(x).astype(jnp.float32)
