"""ConvE."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fusionjax.models.scorers.base import Scorer, Shared
from fusionjax.models.scorers.initialise import Init
from fusionjax.models.scorers.layers import dropout, layer_norm
from fusionjax.names import SCORERS


class ConvE(Scorer):
    """⟨f(vec(f([h̄ ; r̄] * ω)) W), t⟩ + b_t (Dettmers et al. 2018): a convolution over head and relation as one image.

    h̄ and r̄ are h and r as images of `height` rows, one above the other; * ω is a convolution with `filters` filters without
    padding, f a rectifier. An entity's last number is its bias b, so that one against all is one matrix product: entities have
    d + 1 numbers, and the query ends with a 1. Heads are asked for by reciprocal relations only.

    Batch normalisation is replaced by layer normalisation, of the image, of all feature maps together and of the query, each
    with scales and offsets where the paper has them (one of the image, one a feature map, one a number of the query): the score
    stays a function of the parameters alone. The layers before have no bias, as the offsets follow. Dropout: of pixels, of
    whole feature maps, of the query before its normalisation. Paper's start: Xavier normal tables, biases 0 (whatever the
    initialiser), layers uniform within ±1/√inputs.
    """

    name = "conve"
    facts = SCORERS["conve"]

    def __post_init__(self) -> None:
        super().__post_init__()
        at, (height, width) = self.sizes, self.image
        if height * width != at.dim:
            raise ValueError(f"conve: entities of {at.dim} numbers; must be a multiple of the {height} rows of their image")
        if min(2 * height, width) < at.kernel:
            raise ValueError(
                f"conve: images of {2 * height} × {width} numbers are smaller than filters of {at.kernel} × {at.kernel}"
            )

    @property
    def image(self) -> tuple[int, int]:
        """Rows and columns of an entity's image."""
        d, height = self.sizes.dim, self.sizes.height
        if height is None:
            height = next(rows for rows in range(1, d + 1) if d % rows == 0 and rows * rows >= d)
        return height, d // max(height, 1)

    @property
    def entity_width(self) -> int:
        return self.sizes.dim + 1

    @property
    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        (height, width), kernel, filters, d = self.image, self.sizes.kernel, self.sizes.filters, self.sizes.dim
        places = (2 * height - kernel + 1) * (width - kernel + 1)
        return {
            "filters": (kernel * kernel, filters),
            "dense": (places * filters, d),
            "image_scale": (1,),
            "image_offset": (1,),
            "maps_scale": (filters,),
            "maps_offset": (filters,),
            "query_scale": (d,),
            "query_offset": (d,),
        }

    def init_entities(self, key: Array, n: int, how: Init) -> Float[Array, "n d+1"]:
        return super().init_entities(key, n, how).at[:, -1].set(0.0)

    def init_shared(self, key: Array) -> dict[str, Array]:
        shapes = self.shared_shapes
        found = {name: jnp.ones(shape) if name.endswith("scale") else jnp.zeros(shape) for name, shape in shapes.items()}
        for name, layer_key in zip(("filters", "dense"), jax.random.split(key), strict=True):
            bound = shapes[name][0] ** -0.5
            found[name] = jax.random.uniform(layer_key, shapes[name], minval=-bound, maxval=bound)
        return found

    def tail_query(
        self,
        head: Float[Array, "... d+1"],
        relation: Float[Array, "... d"],
        shared: Shared | None = None,
        key: Array | None = None,
    ) -> Float[Array, "... d+1"]:
        shared = self._needed(shared)
        leading = jnp.broadcast_shapes(head.shape[:-1], relation.shape[:-1])
        (height, width), d, rates = self.image, self.sizes.dim, self.sizes.dropout
        of_image, of_maps, of_query = (None, None, None) if key is None else jax.random.split(key, 3)

        pair = [jnp.broadcast_to(part, (*leading, d)).reshape(-1, height, width) for part in (head[..., :d], relation)]
        image = layer_norm(jnp.concatenate(pair, 1), (1, 2))
        image = image * shared["image_scale"][:, None, None] + shared["image_offset"][:, None, None]
        maps = self._convolve(dropout(image, rates.input, of_image), shared["filters"])
        maps = layer_norm(maps, (1, 2))
        maps = jax.nn.relu(maps * shared["maps_scale"][None, None] + shared["maps_offset"][None, None])
        maps = dropout(maps, rates.feature_map, of_maps, (maps.shape[0], 1, maps.shape[2]))

        query = dropout(maps.reshape(maps.shape[0], -1) @ shared["dense"], rates.hidden, of_query)
        query = layer_norm(query, (1,)) * shared["query_scale"][None] + shared["query_offset"][None]
        query = jax.nn.relu(query).reshape(*leading, d)
        return jnp.concatenate([query, jnp.ones((*leading, 1), query.dtype)], -1)

    def _convolve(self, image: Float[Array, "b y x"], filters: Float[Array, "q f"]) -> Float[Array, "b p f"]:
        """Feature maps at all places p, as a matrix product of the q pixels under the filter at each.

        On a CPU a tenth faster than XLA's convolution, with its gradient; with few pixels either is small beside `dense`.
        """
        b, height, width = image.shape
        kernel = self.sizes.kernel
        rows, columns = height - kernel + 1, width - kernel + 1
        under = [image[:, y : y + rows, x : x + columns] for y in range(kernel) for x in range(kernel)]
        return jnp.stack(under, -1).reshape(b, rows * columns, kernel * kernel) @ filters

    def head_query(self, relation: Array, tail: Array, shared: Shared | None = None, key: Array | None = None) -> Array:
        raise ValueError("conve scores tails only: ask for heads by reciprocal relations")

    def factors(self, head: Array, relation: Array, tail: Array) -> tuple[Array, Array, Array]:
        """Without the biases."""
        return super().factors(head[..., :-1], relation, tail[..., :-1])
