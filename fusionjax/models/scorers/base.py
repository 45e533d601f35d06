"""What every scorer of triples is: one hashable object that knows its shapes, first parameters, score and queries.

A scorer is static under jit; its parameters are a plain tree `{"entities": [e, d], "relations": [r, k], "shared": {…}}` made by
`init`. `head`, `tail` are float [..., d], `relation` float [..., k], and leading axes broadcast, so `h[:, None], r[:, None],
entities[None]` scores every tail. A higher score is more plausible. Letters: `b` pairs, `e` entities or `n` some of them, `r`
relations, `d` entity width, `k` relation width.

Where the algebra allows it, a score compares an entity with a query made of the other two (`Scorer.compare`). Then scores of
one pair against all entities are one matrix product that holds nothing larger than [b, n]; else entities come in blocks.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fusionjax.models.scorers.algebra import root
from fusionjax.models.scorers.initialise import Init, draw
from fusionjax.names import ScorerFacts

Shared = Mapping[str, Array]
"""Parameters that belong to no entity and no relation, by name."""
BLOCK_FLOATS = 1 << 22
"""Numbers in an intermediate of a scorer that broadcasts over entities (16 MiB): pairs × entities of a block × width."""


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Rates inside the scorer, used where a key is given."""

    input: float = 0.0
    """Of the entity (TuckER) or the image of entity and relation (ConvE)."""
    feature_map: float = 0.0
    """Of the relation's matrix (TuckER) or whole feature maps (ConvE)."""
    hidden: float = 0.0
    """Of the query."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The numbers that fix a scorer's shapes and its function; each scorer reads those it knows."""

    dim: int
    """Real numbers an entity (ComplEx: half of them real parts, half imaginary ones)."""
    relation_dim: int | None = None
    """TuckER: width of a relation; none: `dim`."""
    norm: int = 2
    """TransE: L1 or L2."""
    margin: float = 0.0
    """Distances: score = margin − distance."""
    height: int | None = None
    """ConvE: rows of the image of `dim` pixels; none: the nearest to a square, not wider than high."""
    filters: int = 32
    """ConvE: feature maps."""
    kernel: int = 3
    """ConvE: side of a filter."""
    dropout: Dropout = Dropout()


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A scoring function with its sizes. Subclasses stand for one paper each and override what is theirs.

    Raises:
      ValueError: at construction, if the sizes do not fit the scorer.
    """

    sizes: Sizes

    name: ClassVar[str]
    facts: ClassVar[ScorerFacts] = ScorerFacts()
    """What a config must know of it: parts that `dim` is cut into, penalties it allows, citation."""

    def __post_init__(self) -> None:
        parts = self.facts.parts
        if self.sizes.dim < 1 or self.sizes.dim % parts:
            raise ValueError(f"{self.name}: entities of {self.sizes.dim} numbers; must be a multiple of {parts}")

    # ---------------------------------------------------------------------------------------------------------- shapes
    @property
    def entity_width(self) -> int:
        return self.sizes.dim

    @property
    def relation_width(self) -> int:
        return self.sizes.dim

    @property
    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the shared parameters, by name; empty if there are none."""
        return {}

    # ------------------------------------------------------------------------------------------------ first parameters
    def init(self, key: Array, n_entities: int, n_relations: int, how: Init = Init()) -> dict:  # noqa: B008 (frozen)
        """First parameters: `entities` float [e, d], `relations` float [r, k], `shared` a dictionary of arrays."""
        of_entities, of_relations, of_shared = jax.random.split(key, 3)
        return {
            "entities": self.init_entities(of_entities, n_entities, how),
            "relations": self.init_relations(of_relations, n_relations, how),
            "shared": self.init_shared(of_shared),
        }

    def init_entities(self, key: Array, n: int, how: Init) -> Float[Array, "n d"]:
        return self._paper_entities(key, n) * how.scale if how.name == "paper" else draw(key, (n, self.entity_width), how)

    def init_relations(self, key: Array, n: int, how: Init) -> Float[Array, "n k"]:
        return self._paper_relations(key, n) * how.scale if how.name == "paper" else draw(key, (n, self.relation_width), how)

    def init_shared(self, key: Array) -> dict[str, Array]:
        """Always as in the paper: they are weights of layers, not tables."""
        return {}

    def _needed(self, shared: Shared | None) -> Shared:
        if shared is None:
            raise ValueError(f"{self.name}: its shared parameters are missing: {', '.join(self.shared_shapes)}")
        return shared

    def _paper_entities(self, key: Array, n: int) -> Array:
        # What implementations share where the paper names none.
        return draw(key, (n, self.entity_width), Init("xavier_normal"))

    def _paper_relations(self, key: Array, n: int) -> Array:
        return draw(key, (n, self.relation_width), Init("xavier_normal"))

    # ----------------------------------------------------------------------------------------------------------- score
    @property
    def compare(self) -> Literal["product", "distance"] | None:
        """How an entity is compared with a query in one matrix product: inner product, L2 distance; None: not at all."""
        return "product"

    @property
    def product(self) -> bool:
        """Whether one against all is a matrix product."""
        return self.compare is not None

    def score(
        self,
        head: Float[Array, "... d"],
        relation: Float[Array, "... k"],
        tail: Float[Array, "... d"],
        shared: Shared | None = None,
    ) -> Float[Array, "..."]:
        """Plausibility of triples; broadcasts. Without dropout."""
        return self.compare_each(self.tail_query(head, relation, shared), tail)

    def tail_query(
        self,
        head: Float[Array, "... d"],
        relation: Float[Array, "... k"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "... d"]:
        """What tails are compared with. With a key, the dropout inside the scorer is active."""
        raise ValueError(f"{self.name} has no query: it scores triples whole")

    def head_query(
        self,
        relation: Float[Array, "... k"],
        tail: Float[Array, "... d"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "... d"]:
        """What heads are compared with; as `tail_query`."""
        back = self.inverse(relation)
        if back is None:
            raise ValueError(f"{self.name} has no query: it scores triples whole")
        return self.tail_query(tail, back, shared, key)

    def inverse(self, relation: Float[Array, "... k"]) -> Float[Array, "... k"] | None:
        """The relation that leads from the tail back: its tail queries are the head queries. None: the scorer has none."""
        return None

    def tail_queries(
        self,
        head: Float[Array, "b d"],
        number: Int[Array, "b"],
        relations: Float[Array, "r k"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "b d"]:
        """Tail queries of a batch whose relations are rows `number` of the table.

        Equal to `tail_query` of those rows, but where relations are matrices work is shared by pairs of one relation. There a
        dropped number of a matrix is dropped for all of them.
        """
        return self.tail_query(head, relations[number], shared, key)

    def head_queries(
        self,
        number: Int[Array, "b"],
        tail: Float[Array, "b d"],
        relations: Float[Array, "r k"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "b d"]:
        """The same of `head_query`."""
        return self.head_query(relations[number], tail, shared, key)

    def compare_each(self, query: Float[Array, "... d"], entity: Float[Array, "... d"]) -> Float[Array, "..."]:
        """Scores of queries and entities pairwise; leading axes broadcast."""
        if self.compare == "distance":
            return self.sizes.margin - root(jnp.square(query - entity).sum(-1))
        return (query * entity).sum(-1)

    def compare_all(self, query: Float[Array, "b d"], entities: Float[Array, "n d"]) -> Float[Array, "b n"]:
        """Scores of every query and every entity, one matrix product.

        Products have the precision JAX is set to. Distances are ‖q‖² + ‖e‖² − 2 q·e, always in full float32 because of the
        cancellation; they are exact relative to the vectors' lengths, and what rounding made negative is 0.
        """
        if self.compare == "product":
            return jnp.einsum("bd,nd->bn", query, entities)
        products = jnp.einsum("bd,nd->bn", query, entities, precision="highest")
        squares = jnp.square(query).sum(-1)[:, None] + jnp.square(entities).sum(-1)[None]
        return self.sizes.margin - root(squares - 2 * products)

    def score_tails(
        self,
        head: Float[Array, "b d"],
        relation: Float[Array, "b k"],
        entities: Float[Array, "n d"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "b n"]:
        """Scores of all entities as tails of (head, relation); memory is bounded, also of the gradient."""
        if self.product:
            return self.compare_all(self.tail_query(head, relation, shared, key), entities)
        return _in_blocks(lambda some: self.score(head[:, None], relation[:, None], some[None], shared), entities, len(head))

    def score_heads(
        self,
        relation: Float[Array, "b k"],
        tail: Float[Array, "b d"],
        entities: Float[Array, "n d"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "b n"]:
        """The same of all entities as heads of (relation, tail)."""
        if self.product:
            return self.compare_all(self.head_query(relation, tail, shared, key), entities)
        return _in_blocks(lambda some: self.score(some[None], relation[:, None], tail[:, None], shared), entities, len(tail))

    # --------------------------------------------------------------------------------------------------- what is penalised
    def factors(
        self, head: Float[Array, "... d"], relation: Float[Array, "... k"], tail: Float[Array, "... d"]
    ) -> tuple[Float[Array, "... f"], Float[Array, "... g"], Float[Array, "... f"]]:
        """Absolute values of head, relation and tail, whose cubes N3 sums (Lacroix et al. 2018).

        Of the numbers the scorer calculates with: the moduli of complex numbers and quaternions, and of real numbers where
        nothing else is said. They have a gradient at 0.
        """
        return jnp.abs(head), jnp.abs(relation), jnp.abs(tail)


def _in_blocks(score: Callable[[Array], Array], entities: Array, b: int) -> Float[Array, "b n"]:
    """`score` of blocks of entities, one after the other; the gradient computes each block anew instead of keeping it."""
    n, width = entities.shape
    size = max(1, min(n, BLOCK_FLOATS // (b * width)))
    n_blocks = -(-n // size)
    if n_blocks == 1:
        return score(entities)
    padded = jnp.pad(entities, ((0, n_blocks * size - n), (0, 0)))
    scores = lax.map(jax.checkpoint(score), padded.reshape(n_blocks, size, width))
    return scores.transpose(1, 0, 2).reshape(b, n_blocks * size)[:, :n]
