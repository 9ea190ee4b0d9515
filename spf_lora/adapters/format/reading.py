"""Opens an adapter of any known layout and checks it whole before its numbers are read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from spf_lora.adapters.format import keys, peft
from spf_lora.adapters.format.container import Container, TensorEntry, open_container
from spf_lora.adapters.format.keys import Key
from spf_lora.adapters.module import Array, Module, Spec
from spf_lora.adapters.number_formats import (
    DTYPES,
    LARGEST_WEIGHT,
    all_finite,
    all_in_range,
    widen_bf16,
)
from spf_lora.base.families import TEXT_WIDTHS, WIDTH
from spf_lora.errors import AdapterFileError

FACTOR_DTYPES = ("F16", "BF16", "F32", "F64")
ALPHA_DTYPES = (*FACTOR_DTYPES, "I64", "I32", "I16")

Factors = dict[str, TensorEntry]


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter whose header is read and checked, and whose numbers are not yet.

    Attributes:
        layout: the naming found: kohya, kohya-ldm, diffusers, diffusers-old, peft or mixed.
        specs: the modules' shapes and scales by canonical name, sorted.
        tensors: what each tensor is, by the name it has in the file.
        metadata: the header's text entries.
        files: the safetensors files it lies in (two for a peft folder of two models).
        load: reads one module's numbers; refuses NaN and inf.
        load_stored: the same, but bf16 stays as its bits (uint16), for a writer.
    """

    layout: str
    specs: Mapping[str, Spec]
    tensors: Mapping[str, Key]
    metadata: Mapping[str, str]
    files: tuple[Path, ...]
    load: Callable[[str], Module]
    load_stored: Callable[[str], Module]


@dataclass(frozen=True)
class _Part:
    container: Container
    tensors: dict[str, Key]
    modules: dict[str, Factors]
    specs: dict[str, Spec]


@contextmanager
def open_adapter(path: str | Path) -> Iterator[OpenAdapter]:
    """Open a .safetensors file or a peft folder and check everything but its numbers.

    Raises:
        AdapterFileError: anything about it is not as it should be.
    """
    with ExitStack() as stack:
        parts = [
            _part(stack.enter_context(open_container(file)), config)
            for file, config in _files(Path(path))
        ]
        owner = {name: part for part in parts for name in part.specs}
        if len(owner) != sum(len(part.specs) for part in parts):
            _refuse(
                Path(path),
                "names a module in both of its files",
                f"one is of another adapter: keep {peft.CONFIG_NAME} beside the right one only",
            )
        specs = {name: owner[name].specs[name] for name in sorted(owner)}

        def load(name: str) -> Module:
            return _widened(load_stored(name))

        def load_stored(name: str) -> Module:
            return _load(owner[name], name)

        yield OpenAdapter(
            layout=_layout([key for part in parts for key in part.tensors.values()]),
            specs=specs,
            tensors={name: key for part in parts for name, key in part.tensors.items()},
            metadata={key: text for part in parts for key, text in part.container.metadata.items()},
            files=tuple(part.container.path for part in parts),
            load=load,
            load_stored=load_stored,
        )


def _files(path: Path) -> list[tuple[Path, Path | None]]:
    """Return the safetensors files of an adapter, each with its peft configuration or None."""
    if not path.is_dir():
        beside = path.with_name(peft.CONFIG_NAME)
        named_by_peft = path.name == peft.WEIGHTS_NAME and beside.exists()
        return [(path, beside if named_by_peft else None)]
    folders = [folder for folder in peft.folders(path) if (folder / peft.CONFIG_NAME).exists()]
    if not folders:
        _refuse(
            path,
            f"is a folder without {peft.CONFIG_NAME}",
            "name a .safetensors file or a folder that peft saved",
        )
    return [(folder / peft.WEIGHTS_NAME, folder / peft.CONFIG_NAME) for folder in folders]


def _part(container: Container, config: Path | None) -> _Part:
    with _located(container.path):
        tensors = keys.parse_keys(container.entries)
    modules = _pair(container, tensors)
    scales = _outer_scales(container, tensors, config)
    with _located(container.path):
        specs = {name: _spec(container, name, factors, scales) for name, factors in modules.items()}
    _refuse_other_families(container.path, specs)
    return _Part(container, tensors, modules, specs)


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Put the file's name before a complaint that does not have it."""
    try:
        yield
    except AdapterFileError as error:
        if error.message.startswith(str(path)):
            raise
        raise AdapterFileError(f"{path}: {error.message}", hint=error.hint) from error


def _pair(container: Container, tensors: Mapping[str, Key]) -> dict[str, Factors]:
    """Give each module its tensors; refuse twins and orphans."""
    modules: dict[str, Factors] = {}
    for name, key in tensors.items():
        factors = modules.setdefault(key.module, {})
        if key.factor in factors:
            _refuse(
                container.path,
                f"names {key.factor} of {key.module} twice",
                "it mixes two layouts; get it again",
            )
        factors[key.factor] = container.entries[name]
    for module, factors in modules.items():
        for factor in ("down", "up"):
            if factor not in factors:
                _refuse(
                    container.path,
                    f"has no {factor} factor for {module}",
                    "the file is incomplete; get it again",
                )
    if not modules:
        _refuse(container.path, "holds no tensors", "get it again")
    return modules


def _outer_scales(
    container: Container, tensors: Mapping[str, Key], config: Path | None
) -> dict[str, peft.PeftScale]:
    """Return the scale stated outside the tensors, by component; empty if there is none."""
    components = {key.module.partition(".")[0] for key in tensors.values()}
    if config is not None:
        return dict.fromkeys(components, peft.read_config(config))
    if any(key.layout == "peft" for key in tensors.values()):
        _refuse(
            container.path,
            f"was saved by peft, but its {peft.CONFIG_NAME} is not beside it",
            "without that file the strength is unknown; get the whole folder and name it",
        )
    text = container.metadata.get(peft.HEADER_KEY)
    if text is None:
        return {}
    return {one: peft.read_header_entry(text, one, container.path) for one in components}


def _spec(
    container: Container,
    name: str,
    factors: Factors,
    scales: Mapping[str, peft.PeftScale],
) -> Spec:
    down, up = factors["down"], factors["up"]
    for entry in (down, up):
        if entry.dtype not in FACTOR_DTYPES:
            _refuse(
                container.path,
                f"stores {entry.name!r} as {entry.dtype}, not as floating point",
                "quantised LoRA files are not read; get the fp16 version",
            )
    spec = Spec(name, down.shape, up.shape, float(down.shape[0] if down.shape else 0), up.dtype)
    component, _, module_path = name.partition(".")
    stated = [_alpha(container, factors["alpha"])] if "alpha" in factors else []
    if component in scales:
        stated.append(scales[component].alpha_for(module_path, spec.rank, container.path))
    if len(stated) == 2:
        _refuse(
            container.path,
            f"states alpha twice for {name}: in a tensor and in its configuration",
            "diffusers refuses such a file as well; get it again",
        )
    return Spec(name, down.shape, up.shape, stated[0], up.dtype) if stated else spec


def _alpha(container: Container, entry: TensorEntry) -> float:
    if entry.shape not in ((), (1,)) or entry.dtype not in ALPHA_DTYPES:
        _refuse(
            container.path,
            f"has an alpha {entry.name!r} that is {entry.dtype} {entry.shape}, not one number",
            "the file is damaged; get it again",
        )
    value = float(container.read(entry.name).reshape(-1)[0])
    if not abs(value) < 1e9:
        _refuse(
            container.path,
            f"has an alpha {entry.name!r} that is {value}",
            "the file is damaged; get it again",
        )
    return value


def _load(part: _Part, name: str) -> Module:
    spec = part.specs[name]
    down, up = (finite(part.container, part.modules[name][factor]) for factor in ("down", "up"))
    return Module(name, down, up, spec.alpha, spec.dtype)


def _widened(module: Module) -> Module:
    down, up = (
        widen_bf16(one) if one.dtype == DTYPES["BF16"] else one for one in (module.down, module.up)
    )
    return Module(module.name, down, up, module.alpha, module.stored)


def finite(container: Container, entry: TensorEntry) -> Array:
    """Read one tensor's stored numbers; refuse NaN, inf, and what no weight can be."""
    array = container.raw(entry.name)
    if not all_in_range(array, entry.dtype):
        finite = all_finite(array, entry.dtype)
        what = f"a number above {LARGEST_WEIGHT:g}" if finite else "NaN or inf"
        _refuse(
            container.path,
            f"holds {what} in {entry.name!r}",
            "the training broke down; use an earlier checkpoint",
        )
    return array


def _layout(keys_of_file: list[Key]) -> str:
    names = {key.layout for key in keys_of_file if key.factor != "alpha"}
    if names == {"kohya", "kohya-ldm"}:
        return "kohya-ldm"
    return names.pop() if len(names) == 1 else "mixed"


def _refuse_other_families(path: Path, specs: Mapping[str, Spec]) -> None:
    for name, spec in specs.items():
        width = spec.down_shape[1]
        other = width in TEXT_WIDTHS and width != WIDTH
        if name.endswith(("attn2.to_k", "attn2.to_v")) and other:
            _refuse(
                path,
                f"is for {TEXT_WIDTHS[width]}: its text states are {width} wide, not {WIDTH}",
                "choose an adapter made for Stable Diffusion 1.5",
            )


def _refuse(path: Path, what: str, hint: str) -> NoReturn:
    raise AdapterFileError(f"{path} {what}", hint=hint)
