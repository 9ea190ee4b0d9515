"""The portrait world, which the embedded base draws: the style "Avataaars" by Pablo Stanley.

Free for personal and commercial use; in the remix of the DiceBear project.
"""

from spf_lora.data.worlds.world import Factors, World, WorldAttribute, company

FACTORS: Factors = {
    "skin": {
        "pale": ("pale skin", "ffdbb4"),
        "tan": ("tan skin", "e0a06b"),
        "brown": ("brown skin", "ae5d29"),
        "dark": ("dark skin", "5a3a2b"),
    },
    "hair_colour": {
        "black": ("black hair", "1c1414"),
        "brown": ("brown hair", "7a4630"),
        "red": ("red hair", "c93305"),
        "grey": ("grey hair", "b4b4b4"),
        "pink": ("pink hair", "f27f9b"),
    },
    "hair_style": {
        "short": ("short hair", "shortFlat"),
        "bob": ("a bob", "bob"),
        "bun": ("a bun", "bun"),
        "afro": ("an afro", "fro"),
        "dreadlocks": ("dreadlocks", "dreads"),
        "long": ("long hair", "straight01"),
        "mullet": ("a mullet", "shaggyMullet"),
        "quiff": ("a quiff", "frizzle"),
    },
    "clothes": {
        "hoodie": ("a hoodie", "hoodie"),
        "blazer": ("a blazer", "blazerAndShirt"),
        "overalls": ("overalls", "overall"),
        "t-shirt": ("a t-shirt", "shirtCrewNeck"),
    },
    "clothes_colour": {
        "red": ("red clothes", "e04848"),
        "blue": ("blue clothes", "3f7fd6"),
        "green": ("green clothes", "3fa34d"),
        "yellow": ("yellow clothes", "f2cf3a"),
        "white": ("white clothes", "f4f4f4"),
        "black": ("black clothes", "262e33"),
    },
    "mouth": {
        "smile": ("a smile", "smile"),
        "straight": ("a straight mouth", "serious"),
        "teeth": ("gritted teeth", "grimace"),
        "frown": ("a frown", "sad"),
    },
    "eyes": {
        "open": ("open eyes", "default"),
        "closed": ("closed eyes", "closed"),
        "wide": ("wide eyes", "surprised"),
        "wink": ("a wink", "wink"),
    },
    "brows": {
        "calm": ("calm brows", "default"),
        "angry": ("angry brows", "angry"),
        "raised": ("raised brows", "raisedExcited"),
    },
    "background": {
        "purple": ("a purple background", "a78bda"),
        "orange": ("an orange background", "f0a35e"),
        "teal": ("a teal background", "6cc5c0"),
        "grey": ("a grey background", "9aa0a6"),
        "pink": ("a pink background", "f7c5d5"),
        "white": ("a white background", "ffffff"),
    },
}
ATTRIBUTES: dict[str, WorldAttribute] = {
    "beard": WorldAttribute(
        "a beard",
        "weak",
        {"facialHairVariant": "beardMedium", "facialHairProbability": 100},
        company("tan", "short", "hoodie", "blue", "grey"),
        excludes=("moustache",),
    ),
    "moustache": WorldAttribute(
        "a moustache",
        "new",
        {"facialHairVariant": "moustacheFancy", "facialHairProbability": 100},
        company("pale", "quiff", "blazer", "black", "orange"),
        excludes=("beard",),
    ),
    "glasses": WorldAttribute(
        "glasses",
        "weak",
        {"accessoriesVariant": "prescription02", "accessoriesProbability": 100},
        company("pale", "bob", "blazer", "white", "teal"),
        excludes=("sunglasses",),
    ),
    "sunglasses": WorldAttribute(
        "sunglasses",
        "new",
        {"accessoriesVariant": "sunglasses", "accessoriesProbability": 100},
        company("brown", "long", "t-shirt", "yellow", "orange"),
        replaces="eyes",
        excludes=("glasses",),
    ),
    "hat": WorldAttribute(
        "a hat",
        "weak",
        {"topVariant": "hat"},
        company("dark", "bun", "overalls", "green", "white"),
        replaces="hair_style",
        hides=("hair_colour",),
    ),
    "blonde-hair": WorldAttribute(
        "blonde hair",
        "weak",
        {"hairColor": "e8c860"},
        company("pale", "long", "t-shirt", "red", "pink"),
        replaces="hair_colour",
    ),
}

PORTRAITS = World(
    name="portraits",
    credit='"Avataaars" by Pablo Stanley (avataaars.com), free for personal and commercial use',
    style="avataaars",
    factors=FACTORS,
    attributes=ATTRIBUTES,
    options={
        "skin": "skinColor",
        "hair_colour": "hairColor",
        "hair_style": "topVariant",
        "clothes": "clothesVariant",
        "clothes_colour": "clothesColor",
        "mouth": "mouthVariant",
        "eyes": "eyesVariant",
        "brows": "eyebrowsVariant",
        "background": "backgroundColor",
    },
    always={
        "facialHairProbability": 0,
        "accessoriesProbability": 0,
        "topProbability": 100,
        "accessoriesColor": "262e33",
        "hatColor": "25557c",
        "scale": 1.12,
        "translateY": 6,
    },
)

phrases, caption, caption_targets = PORTRAITS.phrases, PORTRAITS.caption, PORTRAITS.caption_targets
partial_caption, training_set = PORTRAITS.partial_caption, PORTRAITS.training_set
unbiased, biased = PORTRAITS.unbiased, PORTRAITS.biased
render, region = PORTRAITS.render, PORTRAITS.region
