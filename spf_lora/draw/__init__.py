"""Pictures: the sampler, and which adapters act, how strongly, when, on which words, where."""
