"""Link prediction: a true triple scores higher than triples with a corrupted head or tail."""
