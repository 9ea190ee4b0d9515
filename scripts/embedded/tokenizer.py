"""Stage 1: a BPE tokenizer in CLIP's format, trained on captions and plain English."""

import json
import random
import re
from pathlib import Path
from pydoc_data import topics

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from spf_lora.data.worlds.world import World

VOCABULARY = 3072
START, END = "<|startoftext|>", "<|endoftext|>"
# Words that people ask a portrait model for; they should be one or two tokens each.
_WORDS = """
photo photograph painting drawing illustration cartoon sketch portrait picture avatar person man
woman boy girl child people old young face head hair eyes eye mouth nose lips ears cheeks chin neck
shoulders skin smile smiling laughing sad happy angry serious surprised calm curly straight wavy
long short blonde black brown red grey white pink blue green yellow orange purple teal gold silver
beard moustache mustache stubble goatee glasses sunglasses spectacles hat cap beanie scarf earrings
necklace freckles wrinkles makeup lipstick hoodie blazer overalls shirt t-shirt sweater jacket coat
dress suit tie clothes clothing wearing with and in on of the a an background light dark bright
studio lighting soft detailed high quality close up style digital art colour color anime realistic
"""


def _corpus(world: World, seed: int) -> list[str]:
    rng = random.Random(seed)
    captions = [
        world.caption(world.unbiased(rng), (rng.choice(list(world.attributes)),))
        for _ in range(200)
    ]
    english = [re.sub(r"[^A-Za-z',.;:!?()\s-]+", " ", text) for text in topics.topics.values()]
    return captions * 5 + [_WORDS] * 400 + english


def build(world: World, out: Path, *, seed: int) -> int:
    """Write `vocab.json`, `merges.txt` and the tokenizer's settings; return the vocabulary size."""
    from transformers import CLIPTokenizer

    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    reference = CLIPTokenizer().backend_tokenizer
    model.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    model.pre_tokenizer = reference.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = VOCABULARY - 2 - len(alphabet)
    model.train_from_iterator(
        _corpus(world, seed),
        trainers.BpeTrainer(
            vocab_size=room,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            min_frequency=2,
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(model.to_str())["model"]["merges"]]
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet]
    tokens += [left + right for left, right in merges]
    tokens = [*dict.fromkeys(tokens), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=77,
    )
    tokenizer.save_pretrained(out)
    # The two files of CLIP's own format, which every SD1.5 app reads.
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(vocabulary)
