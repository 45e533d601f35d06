"""What a trained run answers from: the index saved with it, and exact search in it."""
