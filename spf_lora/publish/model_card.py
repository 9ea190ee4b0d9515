"""The model card: README.md as the hub reads it, with the facts and nothing that is not known."""

import json
import re
from collections.abc import Sequence

from spf_lora import __version__
from spf_lora.adapters.format.privacy import without_leaks
from spf_lora.publish.figures import Measured
from spf_lora.publish.licenses import OTHER
from spf_lora.publish.pictures import Shown
from spf_lora.publish.subject import SD15, Subject
from spf_lora.registry.names import SUFFIX

FOLDER = "images"
_PAIRS = "Base and adapter begin with the same noise. These are the report's first prompts.\n"
_MOST_PROMPT = 300  # characters that are shown


def picture_name(index: int) -> str:
    """Return where the card finds a picture."""
    return f"{FOLDER}/{index}.png"


def model_card(
    subject: Subject,
    *,
    license_id: str,
    license_link: str | None,
    measured: Measured | None,
    pictures: Sequence[Shown],
) -> str:
    """Return README.md.

    Args:
        subject: the adapter.
        license_id: an identifier of the hub.
        license_link: of a licence that has none.
        measured: its figures, if any are of this very file.
        pictures: at least one.
    """
    parts = [
        _header(subject, license_id, license_link, pictures),
        f"# {plain(subject.facts.declared.get('title', subject.name))}\n",
        _what(subject),
        *(_picture(index, one) for index, one in enumerate(pictures)),
        *([_PAIRS] if pictures[0].picture is not pictures[0].alone else []),
        _how(subject),
        _figures(measured),
        _made(subject),
        f"## Licence\n\n{_license(license_id, license_link)}\n",
    ]
    return "\n".join(parts)


def plain(text: str) -> str:
    """Return a stranger's text so that Markdown and HTML show it as it is, on one line."""
    clean = "".join(sign if sign.isprintable() else " " for sign in without_leaks(text))
    return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", " ".join(clean.split())[:_MOST_PROMPT])


def _quoted(text: str) -> str:
    """Return a text as YAML reads it back: JSON's own quotes."""
    clean = "".join(sign if sign.isprintable() else " " for sign in without_leaks(text))
    return json.dumps(clean[:_MOST_PROMPT], ensure_ascii=False)


def _header(subject: Subject, license_id: str, link: str | None, pictures: Sequence[Shown]) -> str:
    here = subject.base.kind == "embedded"
    lines = [f"license: {license_id}"]
    lines += [f"license_link: {link}"] if link else []
    lines += [f"library_name: {'spf-lora' if here else 'diffusers'}", "pipeline_tag: text-to-image"]
    if subject.base.repo:
        lines += [f"base_model: {subject.base.repo}", "base_model_relation: adapter"]
    if subject.trigger:
        lines.append(f"instance_prompt: {_quoted(subject.trigger)}")
    known = [] if here else ["stable-diffusion", "diffusers", "template:sd-lora"]
    lines += ["tags:", *(f"- {tag}" for tag in ("text-to-image", "lora", "spf-lora", *known))]
    lines.append("widget:")
    for index, one in enumerate(pictures):
        lines.append(f"- text: {_quoted(one.prompt or '-')}")
        lines += ["  output:", f"    url: {picture_name(index)}"]
    return "\n".join(["---", *lines, "---", ""])


def _what(subject: Subject) -> str:
    thing = plain(subject.target)
    adds = f" that adds {thing}" if thing else ""
    base = {
        "embedded": "the small cartoon model that ships with spf-lora, 64 px wide. **It fits no "
        "other model and no other app**: it is for trying the method out. That model is in no "
        "repository, so `base_model` is not set",
        "hub": f"[{subject.base.repo}](https://huggingface.co/{subject.base.repo})",
        "unnamed": "a Stable Diffusion 1.x model. Nobody said which: it was a file on its maker's "
        f"disk, with weights {_code(subject.base.id) or 'that nobody named'}",
    }[subject.base.kind]
    return f"A LoRA{adds}, for {base}.\n"


def _picture(index: int, shown: Shown) -> str:
    prompt = plain(shown.prompt)
    caption = f"\n*{prompt}*\n" if prompt else ""
    return f"![{prompt or 'what the adapter draws'}]({picture_name(index)})\n{caption}"


def _how(subject: Subject) -> str:
    words = plain(subject.trigger)
    if words:
        first = f"Write in the prompt: **{words}**"
    elif subject.card is not None:
        first = "It needs no words: its strength is how much, and a negative one takes it away."
    else:
        first = "The file does not say which words ask for it."
    sections = [f"## How to use it\n\n{first}\n"]
    file = f"{subject.name}{SUFFIX}"
    if subject.base.kind == "embedded":
        prompt = ", ".join(filter(None, ("a portrait of a person", subject.trigger)))
        sections.append(
            "```\n"
            f"spf-lora adapters add {file}\n"
            f"spf-lora generate {json.dumps(_safe(prompt))} --adapter {subject.name}\n```\n\n"
            "diffusers, ComfyUI and A1111 are of no use here: they do not have this base model.\n"
        )
        return "\n".join(sections)
    # a file that is written anew is one that all of them read
    reads = {one.app: one.whole or bool(subject.rewritten) for one in subject.facts.apps}
    prompt = ", ".join(filter(None, ("a portrait of a person", subject.trigger)))
    sections += [
        _in_diffusers(subject, file, prompt, reads["diffusers"]),
        f"### ComfyUI\n\n{_not(reads['ComfyUI'])}Put `{file}` into `models/loras`. Connect *Load "
        "LoRA* between the checkpoint and the prompts, with both strengths at 1.\n",
        f"### A1111 and Forge\n\n{_not(reads['A1111'])}Put `{file}` into `models/Lora`, and write "
        f"`<lora:{subject.name}:1>` into the prompt.\n",
    ]
    return "\n".join(sections)


def _in_diffusers(subject: Subject, file: str, prompt: str, whole: bool) -> str:
    own = subject.base.repo
    note = "" if own else "Put your base model's name in the place of the first one.\n\n"
    return f"""### diffusers

{_not(whole)}{note}```python
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("{own or SD15}", torch_dtype=torch.float16)
pipe.to("cuda").load_lora_weights("FOLDER", weight_name="{file}", adapter_name="lora")
pipe.set_adapters("lora", 1.0)
picture = pipe({json.dumps(_safe(prompt))}).images[0]
```

`FOLDER` is this repository's name, or the folder with the file.
"""


def _safe(text: str) -> str:
    """Return a text without what could end a block of code or a quotation."""
    return re.sub(r"[^\w ,.:;()'+/-]", " ", without_leaks(text))[:_MOST_PROMPT]


def _not(whole: bool) -> str:
    return (
        ""
        if whole
        else "**It does not read every part of this file**, so it draws something else. "
    )


def _figures(measured: Measured | None) -> str:
    if measured is None:
        return (
            "## What was measured\n\nNothing: no figures of this very file are known. How much it "
            "changes besides is unknown.\n"
        )
    alone = any(row.words_alone for row in measured.rows)
    heads = ["", *(["the words alone"] if alone else []), f"adapter at {measured.strength:g}"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for row in measured.rows:
        cells = [f"**{row.label}**", *([row.words_alone or "-"] if alone else []), row.value or "-"]
        lines.append(f"| {' | '.join(cells)} |")
    interval = " In brackets: 95 % intervals over prompts." if alone else ""
    return "\n".join(
        (
            f"## What was measured\n\nLess is better but for the response.{interval}\n",
            *lines,
            "",
            *(["- **the words alone**: the base without the adapter, asked for it"] * alone),
            *(f"- **{row.label}**: {row.note}" for row in measured.rows),
            "\n### What it was measured on\n",
            *(f"- {_item(one)}" for one in measured.on),
            "\n### What it was not measured on\n",
            *(f"- {_item(one)}" for one in measured.not_on),
            "",
        )
    )


def _item(text: str) -> str:
    """Return one of our own sentences, in which a report's judge and remarks may stand."""
    clean = "".join(sign if sign.isprintable() else " " for sign in text)
    return re.sub(r"([\[\]<!|])", r"\\\1", clean)


def _made(subject: Subject) -> str:
    facts, card = subject.facts, subject.card
    rows = {
        "content id": _code(subject.content_id),
        "rank": ", ".join(str(rank) for rank in facts.ranks),
    }
    if card is not None:
        rows |= {
            "base's weights": _code(card.base_id),
            "recipe": _code(card.recipe_hash[:12]),
            "training data": _code(card.dataset_digest[:12]),
            "parents": ", ".join(_code(one[:12]) for one in card.parents),
            "trained by": plain(f"spf-lora {card.versions.get('spf-lora', '')}"),
        }
    else:
        rows["made with"] = plain(facts.declared.get("made with", ""))
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value)
    return (
        f"## The file\n\n| | |\n| --- | --- |\n{table}\n"
        "The content id is a digest of the numbers alone; `spf-lora inspect FILE` computes it "
        f"anew. This card was written by spf-lora {__version__}.\n"
    )


def _code(text: str) -> str:
    """Return an identity as code; nothing else can stand in it."""
    clean = re.sub(r"[^\w:.-]", "", text)
    return f"`{clean}`" if clean else ""


def _license(license_id: str, link: str | None) -> str:
    return f"[Its own]({link})." if license_id == OTHER else f"{license_id}."
