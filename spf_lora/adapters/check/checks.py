"""What `verify` looks at: one row for each way a file can mislead an app or its user."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spf_lora.adapters import sd15
from spf_lora.adapters.check import apps
from spf_lora.adapters.format import card, hashes
from spf_lora.adapters.format.privacy import leaks
from spf_lora.adapters.format.reading import OpenAdapter, open_adapter
from spf_lora.errors import AdapterFileError, RecipeError


@dataclass(frozen=True)
class Finding:
    """The outcome of one check on one file.

    Attributes:
        check: the check's name.
        status: ok, warn or fail.
        detail: what was found.
    """

    check: str
    status: str
    detail: str


def verify(path: str | Path, app_names: Sequence[str] = tuple(apps.APPS)) -> list[Finding]:
    """Check one file; a file that cannot be read whole gives one failed finding.

    Args:
        path: a .safetensors file or a peft folder.
        app_names: the apps that must read it.

    Raises:
        AdapterFileError: there is nothing at that path.
        RecipeError: an app is unknown.
    """
    path = Path(path)
    chosen = [_app(name) for name in app_names]
    if not path.exists():
        raise AdapterFileError(f"{path} does not exist", hint="check the path")
    try:
        with open_adapter(path) as opened:
            findings = [Finding("readable", "ok", f"{opened.layout}, {len(opened.specs)} modules")]
            findings += [check(opened) for check in _CHECKS]
            findings += [_reads(app, opened) for app in chosen]
            return findings
    except AdapterFileError as error:
        return [Finding("readable", "fail", f"{error.message} ({error.hint})")]
    except OSError as error:
        return [Finding("readable", "fail", f"{path} cannot be read: {error.strerror}")]


def _numbers(opened: OpenAdapter) -> Finding:
    still = 0
    for name in opened.specs:
        try:
            module = opened.load(name)
        except AdapterFileError as error:
            return Finding("numbers", "fail", error.message)
        still += not (module.up.any() and module.down.any())
    if still:
        return Finding("numbers", "warn", f"finite, but {still} modules are zero and do nothing")
    return Finding("numbers", "ok", "all finite")


def _shapes(opened: OpenAdapter) -> Finding:
    specs = list(opened.specs.values())
    wrong = [why for spec in specs if (why := sd15.misfit(spec))]
    if wrong and not any(sd15.misfit(spec, sd15.EMBEDDED) for spec in specs):
        return Finding("shapes", "warn", f"fits {sd15.EMBEDDED.name}, so no SD1.5 app can use it")
    if wrong:
        return Finding("shapes", "fail", _first(wrong))
    return Finding("shapes", "ok", "every module fits Stable Diffusion 1.5")


def _declared_hash(opened: OpenAdapter) -> Finding:
    declared = {
        key: opened.metadata[key].lower().removeprefix("0x")
        for key in ("sshs_model_hash", "modelspec.hash_sha256")
        if key in opened.metadata
    }
    if not declared or len(opened.files) > 1:
        return Finding("declared hash", "ok", "none declared")
    true = hashes.tensor_sha256(opened.files[0])
    stale = [key for key, value in declared.items() if not value or not true.startswith(value)]
    if stale:
        return Finding(
            "declared hash",
            "fail",
            f"{' and '.join(stale)} is stale: the tensors' hash is {true[:12]}...",
        )
    return Finding("declared hash", "ok", f"{true[:12]} is true")


def _alpha(opened: OpenAdapter) -> Finding:
    alphas = sorted({spec.alpha for spec in opened.specs.values()})
    scales = {spec.scale for spec in opened.specs.values()}
    with_alpha = {key.module for key in opened.tensors.values() if key.factor == "alpha"}
    if 0.0 in alphas:
        return Finding("alpha", "fail", "an alpha is 0: those modules do nothing, or all of it")
    if with_alpha and len(alphas) > 1:
        return Finding(
            "alpha",
            "fail",
            f"{len(alphas)} different alphas: diffusers gives some modules a wrong strength; "
            "spf-lora convert fixes it",
        )
    if with_alpha and len(with_alpha) < len(opened.specs):
        return Finding(
            "alpha",
            "fail",
            f"{len(opened.specs) - len(with_alpha)} modules have no alpha and others do; "
            "spf-lora convert fixes it",
        )
    if not with_alpha and opened.layout != "peft" and scales != {1.0}:
        return Finding(
            "alpha",
            "fail",
            "the strength is stated in the header only, which few apps read; "
            "spf-lora convert fixes it",
        )
    stated = f"one for all: {alphas[0]:g}" if with_alpha else "in the configuration"
    return Finding("alpha", "ok", "scale 1" if scales == {1.0} else stated)


def _card(opened: OpenAdapter) -> Finding:
    try:
        parsed = card.from_metadata(opened.metadata)
    except AdapterFileError as error:
        return Finding("card", "fail", error.message)
    return Finding("card", "ok", "true to its own hash" if parsed else "none")


def _privacy(opened: OpenAdapter) -> Finding:
    telling = [f"{key}: {leak}" for key, text in opened.metadata.items() for leak in leaks(text)]
    if telling:
        return Finding("local paths", "warn", _first(telling))
    return Finding("local paths", "ok", "none in the metadata")


def _reads(app: apps.App, opened: OpenAdapter) -> Finding:
    reading = apps.reading(app, opened.tensors, opened.metadata)
    if reading.refused:
        return Finding(app.name, "fail", f"refuses the file: {reading.refused}")
    if reading.dropped:
        return Finding(
            app.name,
            "fail",
            f"drops {len(reading.dropped)} of {reading.total} keys and {app.on_mismatch}",
        )
    return Finding(app.name, "ok", f"reads {reading.total} of {reading.total} keys")


_CHECKS: tuple[Callable[[OpenAdapter], Finding], ...] = (
    _numbers,
    _shapes,
    _declared_hash,
    _alpha,
    _card,
    _privacy,
)


def _app(name: str) -> apps.App:
    by_lower = {known.lower(): app for known, app in apps.APPS.items()}
    if name.lower() not in by_lower:
        raise RecipeError(f"no app is called {name!r}", hint=f"choose {', '.join(apps.APPS)}")
    return by_lower[name.lower()]


def _first(details: list[str]) -> str:
    return details[0] if len(details) == 1 else f"{details[0]}, and {len(details) - 1} more"
