"""What is published: one adapter, what it says of itself, and which base it is for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spf_lora.adapters import sd15
from spf_lora.adapters.check import checks
from spf_lora.adapters.check.facts import AdapterFacts, inspect
from spf_lora.adapters.format.card import Card, trigger_of
from spf_lora.adapters.format.metadata_edit import read_metadata
from spf_lora.base.hub import is_hub_id, split_hub_id
from spf_lora.errors import BaseModelError, CheckFailedError
from spf_lora.registry.edit import check_usable
from spf_lora.registry.names import LOCAL, Entry, Place, check_name, verify

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # where the original's weights are now


@dataclass(frozen=True)
class BaseName:
    """Which base model an adapter is for, as far as anybody can tell.

    Attributes:
        kind: "embedded", "hub", or "unnamed" where nothing says where to find it.
        repo: its repository on the hub, "" if it is in none.
        id: digest of its weights, "" if no card says so.
    """

    kind: Literal["embedded", "hub", "unnamed"]
    repo: str = ""
    id: str = ""


@dataclass(frozen=True)
class Subject:
    """An adapter to be published.

    Attributes:
        name: what its files are called.
        path: where it is.
        facts: all that is known of it.
        metadata: its text entries.
        base: the model it is for.
        rewritten: why it is published as a new kohya file, which every app reads; "" if its bytes
            are.
    """

    name: str
    path: Path
    facts: AdapterFacts
    metadata: dict[str, str]
    base: BaseName
    rewritten: str

    @property
    def card(self) -> Card | None:
        """Its provenance card."""
        return self.facts.card

    @property
    def content_id(self) -> str:
        """The identity of its numbers."""
        assert self.facts.hashes is not None
        return self.facts.hashes["content id"]

    @property
    def trigger(self) -> str:
        """The words that ask for it; "" for a slider, and where nobody says them."""
        if self.card is not None:
            return self.card.trigger
        return trigger_of(self.metadata) or ""

    @property
    def target(self) -> str:
        """What it adds."""
        return self.card.target_text if self.card is not None else self.trigger


def subject_of(path: Path, *, base_model: str | None = None) -> Subject:
    """Return an adapter as it is to be published.

    Args:
        path: its file.
        base_model: the base's repository, where no card says it.

    Raises:
        RegistryError: its file has no name that can be published.
        AdapterFileError: it cannot be read.
        CheckFailedError: it is damaged or says what is not so.
        BaseModelError: `base_model` is no repository, or another base than the adapter's.
    """
    name = check_name(path.stem)
    refuse_unsound(path, name)
    facts = inspect(path, whole=True)
    base = _base_of(facts, base_model)
    return Subject(name, path, facts, read_metadata(path), base, _why_rewritten(path))


def _why_rewritten(path: Path) -> str:
    """Return why a file cannot be published as it is: an app would draw something else from it."""
    alpha = [one for one in checks.verify(path, ()) if (one.check, one.status) == ("alpha", "fail")]
    return check_usable(path) or (alpha[0].detail if alpha else "")


def refuse_unsound(path: Path, name: str) -> None:
    """Refuse an adapter that is damaged or says what is not so.

    Raises:
        CheckFailedError: it is; what is wrong is said.
    """
    findings = verify(Entry(name, path, Place("", LOCAL)))
    if wrong := [one for one in findings if one.status == "fail"]:
        raise CheckFailedError(
            f"{name} does not pass: {wrong[0].check}: {wrong[0].detail}",
            hint="spf-lora verify FILE tells all; get or make the file again",
        )


def _base_of(facts: AdapterFacts, given: str | None) -> BaseName:
    card = facts.card
    identity = card.base_id if card is not None else ""
    if facts.family == sd15.EMBEDDED.name:
        if given:
            raise BaseModelError(
                f"the adapter is for the model that ships with spf-lora, not for {given}",
                hint="leave --base-model out",
            )
        return BaseName("embedded", id=identity)
    if given is not None:
        if not is_hub_id(given) or "@" in given:
            raise BaseModelError(
                f"{given!r} is no repository on the hub", hint=f"--base-model {SD15}"
            )
        return BaseName("hub", given, identity)
    training = card.recipe.get("training") if card is not None else None
    origin = training.get("base") if isinstance(training, dict) else None
    if isinstance(origin, str) and is_hub_id(origin):
        return BaseName("hub", split_hub_id(origin)[0], identity)
    return BaseName("unnamed", id=identity)
