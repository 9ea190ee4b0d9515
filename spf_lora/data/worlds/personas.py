"""The second world, which no setting was chosen on: the style "Personas" by Draftbit.

CC BY 4.0, in the remix of the DiceBear project. Its base is no part of the package.
"""

from spf_lora.data.worlds.portraits import FACTORS
from spf_lora.data.worlds.world import World, WorldAttribute, company

PERSONAS = World(
    name="personas",
    credit='"Personas" by Draftbit (personas.draftbit.com), CC BY 4.0',
    style="personas",
    factors={
        "skin": {  # the style lightens a face; it must stay darker than teeth
            "pale": ("pale skin", "f0b8a0"),
            "tan": ("tan skin", "d9905f"),
            "brown": ("brown skin", "a5603f"),
            "dark": ("dark skin", "4a2a1c"),
        },
        "hair_colour": FACTORS["hair_colour"],
        "hair_style": {
            "short": ("short hair", "shortCombover"),
            "bob": ("a bob", "bobCut"),
            "bun": ("a bun", "straightBun"),
            "curls": ("curls", "curly"),
            "flat-top": ("a flat top", "curlyHighTop"),
            "long": ("long hair", "extraLong"),
            "pigtails": ("pigtails", "pigtails"),
            "side-shave": ("a side shave", "sideShave"),
        },
        "clothes": {
            "checked": ("a checked shirt", "checkered"),
            "jumper": ("a jumper", "rounded"),
            "wrap": ("a wrap", "small"),
            "t-shirt": ("a t-shirt", "squared"),
        },
        "clothes_colour": {  # no white: nobody sees its checks
            "red": ("red clothes", "e04848"),
            "blue": ("blue clothes", "3f7fd6"),
            "green": ("green clothes", "3fa34d"),
            "yellow": ("yellow clothes", "f2cf3a"),
            "purple": ("purple clothes", "7a4fc0"),
            "black": ("black clothes", "262e33"),
        },
        "mouth": {
            "smile": ("a smile", "smile"),
            "grin": ("a grin", "bigSmile"),
            "open": ("an open mouth", "surprise"),
            "frown": ("a frown", "frown"),
        },
        "eyes": {
            "open": ("open eyes", "open"),
            "closed": ("closed eyes", "sleep"),
            "happy": ("happy eyes", "happy"),
            "wink": ("a wink", "wink"),
        },
        "background": FACTORS["background"],
    },
    attributes={
        "beard": WorldAttribute(
            "a beard",
            "weak",
            {"facialHairVariant": "beardMustache", "facialHairProbability": 100},
            company("brown", "short", "checked", "red", "teal"),
            hides=("mouth",),
        ),
        "glasses": WorldAttribute(
            "glasses",
            "weak",
            {"eyesVariant": "glasses"},
            company("tan", "bob", "jumper", "green", "purple"),
            replaces="eyes",
            excludes=("sunglasses",),
        ),
        "sunglasses": WorldAttribute(
            "sunglasses",
            "new",
            {"eyesVariant": "sunglasses"},
            company("pale", "long", "t-shirt", "yellow", "orange"),
            replaces="eyes",
            excludes=("glasses",),
        ),
        "beanie": WorldAttribute(
            "a beanie",
            "weak",
            {"hairVariant": "beanie"},
            company("dark", "curls", "wrap", "blue", "white"),
            replaces="hair_style",
            hides=("hair_colour",),
            excludes=("cap",),
        ),
        "cap": WorldAttribute(
            "a cap",
            "new",
            {"hairVariant": "cap"},
            company("pale", "flat-top", "t-shirt", "black", "grey"),
            replaces="hair_style",
            hides=("hair_colour",),
            excludes=("beanie",),
        ),
    },
    options={
        "skin": "skinColor",
        "hair_colour": "hairColor",
        "hair_style": "hairVariant",
        "clothes": "clothesVariant",
        "clothes_colour": "clothingColor",
        "mouth": "mouthVariant",
        "eyes": "eyesVariant",
        "background": "backgroundColor",
    },
    always={
        "facialHairProbability": 0,
        "noseVariant": "mediumRound",
        "scale": 1.15,
        "translateY": -2,
    },
)
