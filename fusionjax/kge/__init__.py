"""Graph embedding: entity and relation vectors trained on a graph alone, an epoch a compiled program.

Data flows one way: `graph` (triples → arrays on the device) → `sampling` → `model` (parameters → queries and scores) →
`objective` and `ways` (a batch's loss; `looped` and `candidates`: against negatives of each query's own) → `epoch` (a
compiled pass over the triples) → `train` (epochs, validation, checkpoints) → `run`.
"""
