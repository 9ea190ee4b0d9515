from made_adapters import card, delta_of, full_metadata, make_adapter, make_module_of  # noqa: F401
