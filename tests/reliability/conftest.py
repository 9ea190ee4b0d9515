from made_adapters import card, full_metadata, ids, make_adapter, portrait, put  # noqa: F401
