"""A recipe's sections as frozen dataclasses: each key with its note, limits and default."""

from dataclasses import dataclass
from typing import Literal

from spf_lora.strict import Shape, required, setting

Scope = Literal["local", "global"]
Control = Literal["words", "strength"]
Preset = Literal["kv", "cross", "attention", "full"]
OptimizerName = Literal["adamw8bit", "paged-adamw8bit", "lion8bit", "adamw", "prodigy"]
Precision = Literal["fp32", "bf16", "fp16"]
Method = Literal[
    "ours",
    "spf-portrait",
    "plain",
    "l2-to-base",
    "prior-preservation",
    "dop",
    "dco",
    "masked-prior",
]

_SLUG = Shape(r"[a-z0-9]+(-[a-z0-9]+)*", "small letters and digits, words joined by -")
_PHRASE = Shape(r"[^\s,]+( [^\s,]+)*", "one phrase: no comma, no space at its ends, none doubled")
_NAME = Shape(r"\S(.*\S)?", "a name without space at its ends")
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """What is taught: one phrase that a caption either has or has not."""

    name: str = required("name of the adapter and its files", shape=_SLUG)
    target_text: str = required("the phrase that asks for the attribute", shape=_PHRASE)
    aliases: tuple[str, ...] = setting(
        (), "other phrases that ask for the same in captions", shape=_PHRASE
    )
    replaces: tuple[str, ...] = setting(
        (), "phrases, * matching anything, that the target takes the place of", shape=_PHRASE
    )
    scope: Scope = setting("local", "whether it changes one region or the whole picture")
    control: Control = setting(
        "words", "what brings it: its words in the prompt, or the strength alone, as of a slider"
    )
    phrases: tuple[str, ...] = setting(
        (), "phrases of the base prompt, where captions are not split at commas", shape=_PHRASE
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSettings:
    """The low-rank matrices and the layers they sit on."""

    preset: Preset = setting("attention", "layers that get an adapter")
    rank: int = setting(8, "rank of each update", low=1, high=256)
    alpha: float = setting(8.0, "the update is scaled by alpha / rank", low=0.01, high=1024)
    text_encoder: bool = setting(
        False, "train the text encoder too, for words that it does not know; it gets a LoRA as well"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """The pictures and what their captions say."""

    count: int = setting(64, "pictures drawn when no folder is given", low=1, high=100_000)
    coverage: float = setting(
        0.5, "share of the base phrases that a drawn picture's caption names", low=0.0, high=1.0
    )
    bias: float = setting(
        0.8, "probability that a drawn person has a favourite of the set", low=0.0, high=1.0
    )
    resolution: int = setting(
        0, "side, in px, of the square whose area pictures have; 0 is the base's", low=0, high=4096
    )
    batch_size: int = setting(8, "pictures a step, in each process", low=1, high=1024)
    passes: int = setting(
        1, "parts a batch is computed in, to save memory; the result is one", low=1, high=1024
    )
    vocabulary: str = setting(
        "none",
        "captions are completed from it with what data.clip sees for certain: none, auto, "
        "portraits, photographs, tags, or a .toml file",
        shape=_NAME,
    )
    clip: str = setting(
        "base", "base's own CLIP (SD1.5's comes from the hub), or a folder or hub id", shape=_NAME
    )
    seed: int = setting(0, "decides which pictures are drawn", low=0, high=_MAX_SEED)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnSettings:
    """Stage 1: ordinary fine-tuning on image and full prompt."""

    steps: int = setting(250, "steps of stage 1 or a rival; 0 for pairs", low=0, high=1_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilSettings:
    """Stage 2: the file is taught the base's own pictures with the attribute and nothing else."""

    steps: int = setting(250, "steps of stage 2; 0 leaves it out", low=0, high=1_000_000)
    pairs: int = setting(
        48, "pictures drawn to teach, each without and with the attribute", low=8, high=100_000
    )
    sampler_steps: int = setting(16, "steps of the sampler that draws them", low=4, high=200)
    guidance: float = setting(3.0, "CFG scale that they are drawn with", low=1.0, high=30.0)
    vocabulary: str = setting(
        "none",
        "their prompts are put together from it, not from captions: none, auto, portraits, "
        "photographs, tags, or a .toml file",
        shape=_NAME,
    )
    keep: tuple[str, ...] = setting(
        (),
        "of a global attribute: words whose places in the picture stay the base's",
        shape=_PHRASE,
    )
    base_prompts: float = setting(
        0.25, "share of samples that hold the adapter still on the base prompt", low=0.0, high=0.9
    )
    empty_prompts: float = setting(
        0.15, "share of samples that hold the adapter still on no prompt", low=0.0, high=0.9
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSettings:
    """How a gradient becomes a step."""

    name: OptimizerName = setting("adamw8bit", "optimizer; adamw8bit is bitsandbytes'")
    learning_rate: float = setting(1e-3, "largest learning rate", low=1e-8, high=1.0)
    weight_decay: float = setting(0.01, "decoupled weight decay", low=0.0, high=1.0)
    warmup_steps: int = setting(20, "steps of linear warm-up", low=0, high=1_000_000)
    betas: tuple[float, float] = setting(
        (0.9, 0.999), "decay of the gradient's moments", low=0.0, high=0.999999
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """What both stages share."""

    seed: int = setting(0, "decides weights, noise, time steps and order", low=0, high=_MAX_SEED)
    base: str = setting("embedded", "base model to adapt", shape=_NAME)
    method: Method = setting("ours", "objective; the others are rivals to compare with")
    rival_weight: float = setting(
        0.0, "weight of a rival's own term; 0 is its source's", low=0.0, high=1e6
    )
    max_grad_norm: float = setting(1.0, "gradients are clipped to this norm", low=1e-6, high=1e6)
    checkpoint_every_steps: int = setting(100, "steps between checkpoints", low=1, high=1_000_000)
    precision: Precision = setting(
        "fp32", "number format of frozen weights and computation; the adapter is always fp32"
    )
    gradient_checkpointing: bool = setting(
        False, "less memory, about a third more time: activations are computed twice"
    )
    channels_last: bool = setting(False, "memory layout of convolutions; faster on some machines")
    compile: bool = setting(False, "compile the residual blocks; pays in long runs on a GPU")
    tokenizer: str = setting("own", "the base's own, or a folder or hub id of one", shape=_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole, checked recipe: the profile's values, the file's, then the command line's."""

    profile: str
    attribute: Attribute
    adapter: AdapterSettings
    data: DataSettings
    learn: LearnSettings
    distil: DistilSettings
    optimizer: OptimizerSettings
    training: TrainingSettings


SECTIONS: dict[str, type] = {
    "attribute": Attribute,
    "adapter": AdapterSettings,
    "data": DataSettings,
    "learn": LearnSettings,
    "distil": DistilSettings,
    "optimizer": OptimizerSettings,
    "training": TrainingSettings,
}
