"""Exact ranking on device in bounded memory, and metrics of what was found.

Works on arrays and callables; knows nothing of models or training.
"""
