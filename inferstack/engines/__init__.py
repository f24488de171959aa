"""Engines: the code that loads and runs models, and what is known of models without loading."""
