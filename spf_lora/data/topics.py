"""What a portrait's caption should say, and how much of it captions do say.

What every picture of a set shows and no caption names, the adapter learns along with the attribute.
"""

import re
from collections.abc import Sequence

# A caption speaks of a topic when it holds one of these words.
TOPICS: dict[str, str] = {
    "person": r"m[ae]n|wom[ae]n|person|people|boys?|girls?|child(?:ren)?|lady|gentlem[ae]n|guy"
    r"|male|female|toddler|baby|teenager|elderly|adult",
    "skin": r"skin|complexion|tan|tanned|pale|freckle[sd]?|freckled",
    "hair": r"hair(?:ed|cut)?|bald|bob|bun|afro|dreadlocks|mullet|quiff|ponytail|braid(?:s|ed)?"
    r"|bangs|curls|brunette|redhead|blonde?",
    "face": r"smil(?:e|es|ing)|frown(?:s|ing)?|laugh(?:s|ing)?|expression|mouth|teeth|eyes?|wink"
    r"|eyebrows?|brows?|serious|grin(?:s|ning)?|gaze|looking",
    "clothes": r"shirt|t-shirt|tshirt|blouse|jacket|suit|tie|dress|hoodie|blazer|overalls|sweater"
    r"|coat|clothes|clothing|top|vest|scarf|jumper|uniform|wearing",
    "background": r"background|backdrop|outdoors?|indoors?|street|studio|wall|room|park|office"
    r"|forest|beach|garden|city|sky",
    "framing": r"portrait|close-up|closeup|headshot|photo|photograph|selfie|profile|full-body"
    r"|half-body|view|shot",
    "light": r"light(?:ing|s)?|lit|sunlight|sunny|shadows?|daylight|backlit|dark|bright|flash",
}


def topic_shares(captions: Sequence[str]) -> dict[str, float]:
    """Return, for each topic, the share of captions that speak of it."""
    count = max(1, len(captions))
    return {
        topic: sum(bool(_pattern(words).search(c)) for c in captions) / count
        for topic, words in TOPICS.items()
    }


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)
