"""Options that several commands share, each written once, alone or in a group.

A group is a frozen dataclass whose fields are options. A command that is decorated with
`with_groups` names the group as a parameter, offers its fields as options, and is called with one
object.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from spf_lora.errors import RegistryError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Registry = Annotated[
    Path | None,
    typer.Option("--registry", metavar="FOLDER", help="Look here first; changes happen here."),
]
Steps = Annotated[int, typer.Option(min=1, max=1000, help="Steps of the sampler.")]
Guidance = Annotated[float, typer.Option(min=0.0, max=50.0, help="Guidance scale.")]
SamplerName = Annotated[str, typer.Option("--sampler", help="ddim, euler, euler-a or dpm++2m.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="Folder or hub id of the base's tokenizer, if it has none.")
]


@dataclass(frozen=True, kw_only=True)
class ActingOptions:
    """When adapters act, on which words, and where in the picture."""

    start_percent: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Share of the steps before adapters and their words act; of several: 0,0.3.",
        ),
    ] = "0"
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Adapters act on the words that ask for them only, as no other app draws.",
        ),
    ] = False
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Adapters change the base's picture where they answer only; elsewhere it takes "
            "our ComfyUI nodes or diffusers function.",
        ),
    ] = False


AS_USUAL = ActingOptions()


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What is measured, on which pictures, and who looks at them."""

    attribute: Annotated[
        str | None,
        typer.Option("--attribute", "-a", help="What it adds; its card says by default."),
    ] = None
    prompts: Annotated[Path | None, typer.Option(help="A file, one prompt without it a line.")] = (
        None
    )
    seeds: Annotated[
        int | None, typer.Option(min=1, max=64, help="Pictures a prompt; 4, quick 2.")
    ] = None
    base: Annotated[str, typer.Option(help="`embedded`, or what `generate --base` takes.")] = (
        "embedded"
    )
    quick: Annotated[bool, typer.Option("--quick", help="16 prompts, 2 seeds, 3 strengths.")] = (
        False
    )
    strengths: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="The sweep; 0,0.25,...,1.25, quick 0,0.5,1."),
    ] = None
    steps: Steps = 25
    guidance: Guidance = 3.0
    sampler: SamplerName = "ddim"
    judge: Annotated[
        str | None, typer.Option(help="`world` or `photographs`; by default as the base needs.")
    ] = None
    judge_from: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Or pictures with captions: a judge learns from them what it looks like.",
        ),
    ] = None
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=FOLDER", help="Where a photographs' model lies."),
    ] = None
    mask: Annotated[
        Path | None,
        typer.Option(help="Folder with all.png, white where it may act; photographs."),
    ] = None


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Offer the fields of a command's groups as options of its own, in the place of the group."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[name] = kind
            parameters += _parameters(kind)
        else:
            parameters.append(
                parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            )

    def run(**values: Any) -> None:
        made = {
            name: kind(**{one.name: values.pop(one.name) for one in fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **made)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in fields(group)
    ]


def existing(registry: Path | None) -> Path | None:
    """Refuse a registry that was named and is not there.

    Raises:
        RegistryError: it is no folder.
    """
    if registry is not None and not registry.is_dir():
        raise RegistryError(
            f"registry {registry} is no folder", hint="spf-lora adapters add makes one"
        )
    return registry
