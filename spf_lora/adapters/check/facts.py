"""What `inspect` tells about an adapter, as plain values."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spf_lora.adapters import factors, sd15
from spf_lora.adapters.check import apps
from spf_lora.adapters.format import card, hashes
from spf_lora.adapters.format.reading import OpenAdapter, open_adapter
from spf_lora.adapters.module import Spec
from spf_lora.errors import AdapterFileError

# larger files are read whole only when asked: norms and hashes need every byte
WHOLE_READ_BYTES = 32 << 20


@dataclass(frozen=True)
class AdapterFacts:
    """What is known of one adapter.

    Attributes:
        path: as given.
        size: bytes of its tensors' files.
        layout: the naming found.
        dtypes: stored dtypes with how many modules have each.
        components: modules in the U-Net and in the text encoder.
        ranks: ranks with how many modules have each.
        alphas: alphas with how many modules have each.
        kinds: linear and conv modules.
        family: the base family.
        card: the provenance card, or None.
        declared: title, trigger, licence and the like from the header.
        apps: for every app what it reads.
        norms: Frobenius norm of the change per block; None if the numbers were not read.
        hashes: content id, AutoV2, AutoV3; None if the numbers were not read.
    """

    path: Path
    size: int
    layout: str
    dtypes: dict[str, int]
    components: dict[str, int]
    ranks: dict[int, int]
    alphas: dict[float, int]
    kinds: dict[str, int]
    family: str
    card: card.Card | None
    declared: dict[str, str]
    apps: list[apps.Reading]
    norms: dict[str, float] | None = None
    hashes: dict[str, str] | None = None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return {
            "path": str(self.path),
            "size": self.size,
            "layout": self.layout,
            "family": self.family,
            "modules": sum(self.components.values()),
            "components": self.components,
            "kinds": self.kinds,
            "dtypes": self.dtypes,
            "ranks": {str(rank): count for rank, count in self.ranks.items()},
            "alphas": {f"{alpha:g}": count for alpha, count in self.alphas.items()},
            "declared": self.declared,
            "card": None if self.card is None else card.as_table(self.card),
            "norms": self.norms,
            "hashes": self.hashes,
            "apps": {
                one.app: {
                    "read": one.total - len(one.dropped),
                    "total": one.total,
                    "dropped": list(one.dropped),
                    "refused": one.refused or None,
                }
                for one in self.apps
            },
            "notes": self.notes,
        }


_DECLARED = {
    "title": ("modelspec.title", "ss_output_name"),
    "trigger": ("modelspec.trigger_phrase",),
    "author": ("modelspec.author",),
    "licence": ("modelspec.license",),
    "description": ("modelspec.description",),
    "usage": ("modelspec.usage_hint",),
    "date": ("modelspec.date",),
    "base named": ("ss_base_model_version", "modelspec.architecture"),
    "made with": ("modelspec.implementation", "ss_network_module"),
}


def inspect(path: Path, *, whole: bool | None = None) -> AdapterFacts:
    """Gather the facts of one adapter.

    Args:
        path: a .safetensors file or a peft folder.
        whole: read every number for norms and hashes; None means for files up to 32 MiB.

    Raises:
        AdapterFileError: it cannot be read.
    """
    with open_adapter(path) as opened:
        size = sum(file.stat().st_size for file in opened.files)
        specs = list(opened.specs.values())
        notes: list[str] = []
        found_card = _card(opened, notes)
        family = sd15.family(specs)
        ours_alone = family == sd15.EMBEDDED.name  # other apps know its keys, not its widths
        read = size <= WHOLE_READ_BYTES if whole is None else whole
        return AdapterFacts(
            path=path,
            size=size,
            layout=opened.layout,
            dtypes=dict(Counter(spec.dtype for spec in specs)),
            components=dict(Counter(spec.name.partition(".")[0] for spec in specs)),
            ranks=dict(sorted(Counter(spec.rank for spec in specs).items())),
            alphas=dict(sorted(Counter(spec.alpha for spec in specs).items())),
            kinds=dict(Counter(spec.kind for spec in specs)),
            family=family,
            card=found_card,
            declared=_declared(opened),
            apps=[
                apps.reading(app, opened.tensors, opened.metadata)
                for app in (() if ours_alone else apps.APPS.values())
            ],
            norms=_norms(opened, specs) if read else None,
            hashes=_hashes(opened) if read else None,
            notes=notes,
        )


def _norms(opened: OpenAdapter, specs: list[Spec]) -> dict[str, float]:
    squares: dict[str, float] = {}
    for spec in specs:
        at = sd15.block(spec.name)
        squares[at] = squares.get(at, 0.0) + factors.norm(opened.load(spec.name)) ** 2
    return {at: squares[at] ** 0.5 for at in sorted(squares, key=sd15.natural)}


def _hashes(opened: OpenAdapter) -> dict[str, str]:
    digests = {"content id": hashes.content_id_of(opened.specs, opened.load)}
    if len(opened.files) == 1:
        digests["AutoV2"] = hashes.autov2(opened.files[0])
        digests["AutoV3"] = hashes.autov3(opened.files[0])
    return digests


def _declared(opened: OpenAdapter) -> dict[str, str]:
    declared: dict[str, str] = {}
    for label, keys in _DECLARED.items():
        text = next((opened.metadata[key] for key in keys if opened.metadata.get(key)), "")
        if text:
            declared[label] = text
    return declared


def _card(opened: OpenAdapter, notes: list[str]) -> card.Card | None:
    try:
        return card.from_metadata(opened.metadata)
    except AdapterFileError as error:
        notes.append(error.message)
        return None
