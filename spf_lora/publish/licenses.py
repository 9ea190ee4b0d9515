"""The licence of what is published: said by its maker, never guessed."""

from spf_lora.errors import RecipeError
from spf_lora.strict import did_you_mean

OTHER = "other"
# identifiers that the hub knows and that fit a LoRA: huggingface.co/docs/hub/repositories-licenses
_KNOWN = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-openrail-m bsd-2-clause bsd-3-clause
bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0
cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl-2.0
gpl-3.0 isc lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++
osl-3.0 pddl unlicense wtfpl zlib
"""
KNOWN = frozenset(_KNOWN.split())


def check_license(given: str | None, declared: str, link: str | None) -> str:
    """Return the licence's identifier.

    Args:
        given: what the user said; it goes before what the file says.
        declared: what the file's metadata says, "" for nothing.
        link: where the text of another licence is.

    Raises:
        RecipeError: there is none, the hub does not know it, or `other` has no link.
    """
    said = (given if given is not None else declared).strip().lower()
    if not said:
        raise RecipeError(
            "nobody said under which licence this is published",
            hint="--license ID, such as cc-by-4.0 or creativeml-openrail-m; the base model's "
            "licence may ask for its own terms",
        )
    if said == OTHER:
        if not link or not link.startswith("https://") or not link.isprintable() or " " in link:
            raise RecipeError(
                "another licence needs the address of its text",
                hint="--license other --license-link https://...",
            )
        return said
    if link:
        raise RecipeError(f"the text of {said} is known", hint="leave --license-link out")
    if said not in KNOWN:
        whose = "" if given is not None else ", which the file's metadata says,"
        near = did_you_mean(said, KNOWN)
        raise RecipeError(
            f"{said[:60]!r}{whose} is no licence that the hub knows"
            + (near if near.startswith("; did") else ""),
            hint="--license ID, such as cc-by-4.0; or --license other --license-link https://...",
        )
    return said
