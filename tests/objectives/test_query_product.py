"""Queries and products: parts of titles among the queries, and which products a row is known to match."""

from fusionjax.data.text import PAD
from fusionjax.objectives.query_product import QueryProduct
from tests.shops import tiny_inputs, tiny_run


def test_titles_stand_in_for_queries() -> None:
    config = tiny_run("objectives.query_product.from_titles=0.5")
    inputs = tiny_inputs(config)
    objective = QueryProduct(inputs, config)
    pairs = {tuple(pair) for pair in inputs.positives.tolist()}
    assert inputs.query_tokens is not None and inputs.product_tokens is not None
    query_of = {row.tobytes(): place for place, row in enumerate(inputs.query_tokens)}
    for index in range(5):
        batch = objective.batch(index)
        product, width = batch["product"], inputs.query_tokens.shape[1]
        for place in range(16):
            row, known = batch["tokens"][place], batch["known"][place]
            assert known[place]
            if place < 8:  # a part of the title of the product it points at
                assert set(row.tolist()) <= set(inputs.product_tokens[product[place]].tolist()) | {PAD}
                assert known.tolist() == (product == product[place]).tolist()
            else:
                query = query_of[row[:width].tobytes()]
                assert known.tolist() == [(query, other) in pairs for other in product.tolist()]
