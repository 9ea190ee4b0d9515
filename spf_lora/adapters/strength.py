"""The strength that an adapter is used at: what it adds is multiplied by it."""

from spf_lora.errors import AdapterFileError

LOWEST, HIGHEST = -4.0, 4.0


def split_strength(text: str) -> tuple[str, float]:
    """Split "NAME_OR_FILE[:STRENGTH]"; without a strength it is 1.

    Raises:
        AdapterFileError: the strength is no number in [-4, 4].
    """
    name, colon, number = text.rpartition(":")
    if not colon or "/" in number or number.endswith(".safetensors"):
        name, number = text, "1"
    try:
        strength = float(number)
    except ValueError:
        strength = float("nan")
    if not LOWEST <= strength <= HIGHEST:
        raise AdapterFileError(
            f"the strength in {text!r} is no number from {LOWEST:g} to {HIGHEST:g}",
            hint="write it like beard:0.8",
        )
    return name, strength
