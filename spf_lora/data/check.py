"""What training would see in a folder: the one check behind `data check` and `train --data`.

Faults stop a training; notes are advice. Both name files, and no picture is left out in silence.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from spf_lora.data.bias import Against, Companion, companions
from spf_lora.data.buckets import Bucket, cropped_share, enlargement, nearest_bucket
from spf_lora.data.captions import base_prompt, full_prompt, split_phrases
from spf_lora.data.duplicates import groups_of_equals, groups_of_near
from spf_lora.data.faults import Fault
from spf_lora.data.folder import Example, Scan, picture_digest
from spf_lora.data.sentences.cut import is_sentence
from spf_lora.data.topics import topic_shares
from spf_lora.recipe.schema import Attribute

FEWEST = 15  # pictures; with less an adapter learns those and not what they share
PAIRS = 3  # shown as training will use them
MOST_ENLARGED = 3.0  # more is a blur, and the adapter would learn the blur
_MOST_CROPPED = 0.25
_FEW_PHRASES = 4
_BIAS_SHARE, _BIAS_LIFT = 0.5, 2.0


class CaptionPrompts(NamedTuple):
    """The two prompts that training makes of a caption."""

    source: str
    base_prompt: str
    full_prompt: str


@dataclass(frozen=True)
class Report:
    """A checked folder.

    Attributes:
        folder: its name as given.
        pictures: that were found, good or not.
        usable: pictures with a caption that can be trained on.
        masks: usable pictures with a mask.
        buckets: shape -> usable pictures.
        enlarged: source -> factor, where a picture is smaller than its bucket.
        cropped: source -> share cut off, where it is over a quarter.
        animated: sources of which only the first frame is used.
        sentences: captions in sentences.
        pairs: of the first few pictures, the prompts that training makes of the caption.
        spared: sources that have the name of kohya's folder for a caption.
        unread: folders inside that hold pictures and were not read.
        repeats: folder -> how often its pictures are seen, where that differs.
        phrases_mean: phrases of a caption beside the target, on average.
        phrases_fewest: of the shortest caption.
        topics: topic -> share of captions that speak of it.
        cut_off: source -> the end of its full prompt that the text encoder does not read.
        equal: sources of pictures with the same pixels.
        near: sources of pictures that look the same.
        companions: words beside the attribute, strongest bias first.
        against: what they were compared with.
        faults: what cannot be trained on.
        notes: advice.
    """

    folder: str
    pictures: int
    usable: int
    masks: int
    buckets: dict[str, int]
    enlarged: dict[str, float]
    cropped: dict[str, float]
    animated: list[str]
    sentences: int
    pairs: list[CaptionPrompts]
    spared: list[str]
    unread: list[str]
    repeats: dict[str, int]
    phrases_mean: float
    phrases_fewest: int
    topics: dict[str, float]
    cut_off: dict[str, str]
    equal: list[list[str]]
    near: list[list[str]]
    companions: list[Companion]
    against: Against
    faults: list[Fault]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return plain values that JSON can write."""
        rows = [
            {
                "words": r.words,
                "count": r.count,
                "captions": r.captions,
                "share": r.share,
                "expected": r.expected,
                "lift": r.lift,
            }
            for r in self.companions
        ]
        faults, pairs = ([one._asdict() for one in many] for many in (self.faults, self.pairs))
        return {**asdict(self), "companions": rows, "faults": faults, "pairs": pairs}


def check(
    scan: Scan,
    attribute: Attribute,
    *,
    buckets: Sequence[Bucket],
    cut_off: Callable[[str], str],
    others: Sequence[str] = (),
) -> Report:
    """Measure a scanned folder.

    Args:
        scan: the folder as it was read.
        attribute: what is taught.
        buckets: shapes that training uses.
        cut_off: returns the end of a prompt that does not fit into the text encoder, or "".
        others: captions without the attribute, to compare with.
    """
    examples = scan.examples
    captions = [example.caption for example in examples]
    prompts = [base_prompt(caption, attribute) for caption in captions]
    phrases = [len(split_phrases(prompt)) for prompt in prompts]
    full = {e.source: full_prompt(e.caption, attribute) for e in examples}
    chosen = {e.source: nearest_bucket(scan.sizes[e.source], buckets) for e in examples}
    # stage 1 reads captions as they are; wherever else it is asked for, the target comes last
    last = {e.source: full_prompt(p, attribute) for e, p in zip(examples, prompts, strict=True)}
    lost = {s: end for s, text in full.items() if (end := cut_off(last[s]) or cut_off(text))}
    rows, against = companions(captions, attribute, others)
    equal, near = _alike(examples)
    scale = {source: enlargement(scan.sizes[source], b) for source, b in chosen.items()}
    crop = {source: cropped_share(scan.sizes[source], b) for source, b in chosen.items()}
    report = Report(
        folder=str(scan.folder),
        pictures=scan.pictures,
        usable=len(examples),
        masks=sum(example.mask is not None for example in examples),
        buckets=dict(Counter(map(str, chosen.values())).most_common()),
        enlarged={s: round(x, 2) for s, x in scale.items() if 1 < x <= MOST_ENLARGED},
        cropped={s: round(x, 2) for s, x in crop.items() if x > _MOST_CROPPED},
        animated=scan.animated,
        sentences=sum(map(is_sentence, captions)),
        pairs=[
            CaptionPrompts(e.source, prompt, full[e.source])
            for e, prompt in list(zip(examples, prompts, strict=True))[:PAIRS]
        ],
        spared=scan.spared,
        unread=scan.unread,
        repeats=_repeats(examples),
        phrases_mean=sum(phrases) / max(1, len(phrases)),
        phrases_fewest=min(phrases, default=0),
        topics=topic_shares(prompts),
        cut_off=lost,
        equal=equal,
        near=near,
        companions=rows,
        against=against,
        faults=sorted([*scan.faults, *tiny(scan, buckets), *_too_long(lost)], key=str),
        notes=[],
    )
    report.notes.extend(_notes(report))
    return report


def _repeats(examples: Sequence[Example]) -> dict[str, int]:
    """Return how often the pictures of each folder are seen, where that differs."""
    repeats = {e.source.partition("/")[0]: e.repeats for e in examples}
    return repeats if len(set(repeats.values())) > 1 else {}


def tiny(scan: Scan, buckets: Sequence[Bucket]) -> list[Fault]:
    """Return a fault for each picture that could fill its bucket only as a blur."""
    faults = []
    for source, size in scan.sizes.items():
        bucket = nearest_bucket(size, buckets)
        if (scale := enlargement(size, bucket)) > MOST_ENLARGED:
            text = f"is {size[0]}x{size[1]} px, too small for {bucket}: enlarged {scale:.1f} times"
            faults.append(Fault(source, text))
    return faults


def _too_long(lost: Mapping[str, str]) -> list[Fault]:
    text = "its prompt is over 77 tokens, so the text encoder would not read its end: "
    return [Fault(source, f"{text}{end!r}") for source, end in lost.items()]


def _alike(examples: Sequence[Example]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the sources of equal pictures, and of near ones with one of each equals."""
    images = [example.image for example in examples]
    same = groups_of_equals(picture_digest(image) for image in images)
    again = {place for group in same for place in group[1:]}
    single = [place for place in range(len(images)) if place not in again]
    close = groups_of_near([images[place] for place in single])
    return (
        [[examples[place].source for place in group] for group in same],
        [[examples[single[place]].source for place in group] for group in close],
    )


def _notes(report: Report) -> list[str]:
    notes = []
    if 0 < report.usable < FEWEST:
        notes.append(
            f"ONLY {report.usable} PICTURES: with fewer than {FEWEST} an adapter learns these "
            "pictures and not what they share; add others, of other people and places"
        )
    if report.spared:
        notes.append(
            f"{_some(report.spared)} without a caption, so the folder's name is used, as kohya "
            "does: say in a .txt what else is seen, or it is learned along"
        )
    if report.unread:
        notes.append(f"pictures in {', '.join(report.unread[:4])} are not read")
    if report.repeats:
        repeats = ", ".join(f"{name} x{times}" for name, times in report.repeats.items())
        notes.append(f"pictures are seen in proportion to their folder's repeats: {repeats}")
    if report.enlarged:
        notes.append(f"{_some(report.enlarged)} smaller than the shape it is trained in: blurred")
    if report.cropped:
        notes.append(f"{_some(report.cropped)} longer than any shape: over a quarter is cut off")
    if report.animated:
        notes.append(f"{_some(report.animated)} animated: the first frame is used")
    if 0 < report.masks < report.usable:
        notes.append(f"{report.usable - report.masks} pictures have no mask and are learned whole")
    for what, groups in (("the same picture", report.equal), ("nearly the same", report.near)):
        if groups:
            shown = "; ".join(", ".join(group[:4]) for group in groups[:3])
            more = f"; and {len(groups) - 3} groups more" if len(groups) > 3 else ""
            notes.append(f"{what}, so it counts more than once: {shown}{more}")
    listed = 2 * report.sentences <= report.usable
    if report.usable and listed and report.phrases_mean < _FEW_PHRASES:
        notes.append(
            f"captions name {report.phrases_mean:.1f} things beside the attribute: name all that "
            "is seen, or it is learned along with the attribute"
        )
    biased = [row for row in report.companions if is_biased(row)]
    if biased:
        shown = ", ".join(f"{row.words!r} in {row.share:.0%}" for row in biased[:4])
        notes.append(f"beside the attribute too often: {shown}; add pictures without")
    return notes


def is_biased(row: Companion) -> bool:
    """Tell whether a word comes with the attribute so often that it will be learned too."""
    return row.count > 2 and row.share >= _BIAS_SHARE and (row.lift or 0) >= _BIAS_LIFT


def _some(sources: Sequence[str] | dict[str, Any]) -> str:
    names = list(sources)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"
