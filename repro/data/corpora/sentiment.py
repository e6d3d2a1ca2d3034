"""Film reviews whose sentiment is composed: polarity, degree, negation, contrast, neutral words.

    the plot is not very gripping , but the young cast is superb .      -> positive
    although the score is moving , nobody could call this film subtle . -> negative

Every opinion word has a valence. A degree word scales it, a negation turns and weakens it, and of two
contrasted clauses the main one outweighs the other. The label is the sign of the sum. Words follow
a Zipf law, so that part of the lexicon is seen only a few times.
"""

import random

from repro.data.corpora.shared.splits import is_own
from repro.data.corpora.shared.words import listed, zipf
from repro.tasks.base import Row

CATEGORIES = (
    "positive",
    "negative",
    "neutral",
    "negation",
    "degree",
    "contrast",
    "content",
    "function",
)


_POSITIVE = listed(
    """
    good great fine superb moving funny charming gripping clever fresh warm bold elegant witty
    tender vivid graceful inventive absorbing radiant touching sharp lively rich honest delightful
    masterful stirring subtle luminous hilarious rewarding poignant spirited compelling assured
    refreshing sincere magical sublime engaging satisfying heartfelt intelligent thrilling joyous
    captivating nuanced exquisite riveting sparkling affecting dazzling playful humane crisp soulful
    electrifying wry uplifting
    """
)
_NEGATIVE = listed(
    """
    bad dull poor tedious clumsy stale cold silly shallow awful bland lifeless muddled tired hollow
    dreary sloppy pointless crude forced messy predictable wooden annoying contrived boring ugly
    incoherent lazy pretentious leaden trite grating vapid overlong stilted mawkish sluggish
    charmless tasteless humourless dismal feeble laboured insipid derivative garish smug numbing
    unfunny joyless plodding inept soulless shrill murky cynical turgid witless lumbering
    """
)
_NEUTRAL = listed(
    """
    average ordinary adequate familiar generic conventional usual typical plain standard modest
    expected serviceable moderate passable unremarkable middling routine ambiguous realistic
    """
)
_TOPICS = listed(
    """
    film plot story cast script ending score dialogue pacing acting premise direction photography
    humour romance drama comedy lead villain sequel opening climax editing mood setting finale
    narration message scenery costume soundtrack performance screenplay action suspense satire
    """
)
_QUALIFIERS = listed(
    """
    young old french second long quiet famous modern local final early new late small
    """
)
_SCENES = (
    "in the second half",
    "for most of its length",
    "from the first scene",
    "despite the small budget",
    "on the big screen",
    "after a slow start",
    "to the very end",
    "in the hands of this director",
    "with or without the songs",
    "among this year 's releases",
)
_DEGREES = {
    "very": 1.5,
    "truly": 1.5,
    "utterly": 1.8,
    "quite": 1.2,
    "slightly": 0.5,
    "somewhat": 0.6,
}

_Words = list[tuple[str, str]]


def generate(size: int, seed: int) -> list[Row]:
    """Generate reviews in SST-2's schema, `sentence`, `label`, `idx`, with `categories`; half of each label.

    The same seed gives the same rows. About 10,000 rows a second.
    """
    generator = random.Random(f"sentiment:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        words, valence = _review(generator)
        label = len(rows) % 2
        if abs(valence) < 0.25 or (valence > 0) != bool(label):
            continue
        words.append((".", "function"))
        sentence = " ".join(word for word, _ in words)
        if not is_own(sentence, seed):
            continue
        rows.append(
            {
                "sentence": sentence,
                "label": label,
                "idx": len(rows),
                "categories": [category for _, category in words],
            }
        )
    generator.shuffle(rows)
    return rows


def _review(generator: random.Random) -> tuple[_Words, float]:
    first, first_valence = _clause(generator)
    form = generator.random()
    if form < 0.3:
        return first, first_valence
    second, second_valence = _clause(generator)
    comma = (",", "function")
    if form < 0.5:
        return [*first, ("and", "function"), *second], first_valence + second_valence
    contrasted = 0.4 * first_valence + second_valence
    if form < 0.7:
        return [*first, comma, ("but", "contrast"), *second], contrasted
    opener = generator.choice(["although", "while", "even though"])
    aside: _Words = [(word, "contrast") for word in opener.split()] + first
    if form < 0.85:
        return [*aside, comma, *second], contrasted
    return [*second, comma, *aside], contrasted


def _clause(generator: random.Random) -> tuple[_Words, float]:
    subject: _Words = [("the", "function")]
    if generator.random() < 0.35:
        subject.append((generator.choice(_QUALIFIERS), "content"))
    subject.append((zipf(generator, _TOPICS), "content"))
    opinion, valence = _opinion(generator)
    form = generator.random()
    if form < 0.05:
        words = _tagged("nobody could call", "negation") + subject + opinion
        valence = -0.8 * valence
    elif form < 0.09:
        words = _tagged("it is wrong to say that", "negation") + subject
        words += [("is", "function"), *opinion]
        valence = -0.8 * valence
    elif form < 0.15:
        words = [*subject, ("is", "function"), ("less", "negation"), *opinion]
        words += _tagged("than the original", "function")
        valence = -0.6 * valence
    else:
        words = [*subject, ("is", "function"), *opinion]
    if generator.random() < 0.3:
        words += _tagged(generator.choice(_SCENES), "content")
    return words, valence


def _opinion(generator: random.Random) -> tuple[_Words, float]:
    """One or two opinion words with degree and negation, and their valence."""
    words, valence = _adjective(generator)
    if generator.random() < 0.3:
        more, more_valence = _adjective(generator)
        words, valence = [*words, ("and", "function"), *more], valence + more_valence
    return words, valence


def _adjective(generator: random.Random) -> tuple[_Words, float]:
    kind = generator.random()
    if kind < 0.2:
        words, valence = [(zipf(generator, _NEUTRAL), "neutral")], 0.0
    elif kind < 0.6:
        words, valence = [(zipf(generator, _POSITIVE), "positive")], 1.0
    else:
        words, valence = [(zipf(generator, _NEGATIVE), "negative")], -1.0
    if generator.random() < 0.35:
        degree = generator.choice(list(_DEGREES))
        words.insert(0, (degree, "degree"))
        valence *= _DEGREES[degree]
    if generator.random() < 0.12:
        words.insert(0, (generator.choice(["not", "never", "hardly"]), "negation"))
        valence *= -0.7
    return words, valence


def _tagged(phrase: str, category: str) -> _Words:
    return [(word, category) for word in phrase.split()]
