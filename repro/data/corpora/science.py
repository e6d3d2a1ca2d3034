"""Science questions with four choices: what has a property, or two, or lacks one; which is the most of all.

    Anna needs a thing that lets a current through for a test at school . Which one should she take ?
    a glass key | a copper ring | a wool bowl | a wooden coin     -> a copper ring

    At the lake Hugo saw an animal that lays eggs but does not fly . What could it be ?
    a bat | an eagle | a frog | a cow                             -> a frog

    The red box weighs six grams , the blue box weighs nine grams , the green box weighs two grams and the
    white box weighs four grams . Which one is the lightest ?
    the red box | the blue box | the green box | the white box    -> the green box

What materials and animals are like is the same in all rows, and no row states it: it is learned from the
right answers of others. Of two properties at once one wrong choice has the first alone, another the second.
Which is the most of all follows from the question only.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from repro.data.corpora.shared.splits import is_own
from repro.data.corpora.shared.words import (
    COUNTS,
    LEXICON,
    MEN,
    WOMEN,
    Words,
    an,
    listed,
    mark,
    people,
    roles_of,
    tagged,
    text_of,
)
from repro.tasks.base import Row

CATEGORIES = (
    "question",  # the words that ask
    "property",  # what singles the right choice out
    "negation",
    "answer",  # words of the right choice
    "distractor",  # words of the others
    "entity",  # people, and the things that are compared
    "number",
    "pronoun",
    "verb",
    "content",
    "function",
)

COMPARED = 0.3
"""Share of the questions that compare four things; the others are about properties."""
NEGATED = 0.3
"""How often one property is asked for by its opposite."""
BOTH = 0.4
"""How often two properties are asked for."""
_LABELS = "ABCD"


class Property(NamedTuple):
    """Something that is true of some things of a kind, and not of others; what is unclear is in neither."""

    true: list[str]
    """Ways to say that it is."""
    false: list[str]
    having: set[str]
    lacking: set[str]


def _property(true: str, false: str, having: str, lacking: str) -> Property:
    return Property(true.split(" / "), false.split(" / "), {*having.split()}, {*lacking.split()})


MATERIALS = [
    _property(
        "lets a current through / carries electricity",
        "does NOT let a current through / keeps electricity out",
        "iron steel copper silver gold",
        "glass wooden rubber wool plastic wax cork paper",
    ),
    _property(
        "sticks to a magnet / is pulled by a magnet",
        "does NOT stick to a magnet",
        "iron steel",
        "copper silver gold glass wooden rubber wool plastic wax cork paper stone clay",
    ),
    _property(
        "floats on water / stays on top of the water",
        "does NOT float on water / goes down in water",
        "wooden cork wax ice",
        "iron steel copper silver gold glass stone clay",
    ),
    _property(
        "melts in a warm hand / turns soft in the sun",
        "does NOT melt in a warm hand",
        "ice wax",
        "iron steel copper gold glass wooden rubber stone clay cork",
    ),
    _property(
        "burns in a fire / can catch fire",
        "does NOT burn in a fire",
        "wooden paper wool cork wax",
        "iron steel copper silver gold glass stone clay ice",
    ),
    _property(
        "breaks when it falls / cracks under a hammer",
        "does NOT break when it falls",
        "glass clay ice",
        "iron steel copper gold rubber wool cork paper wooden",
    ),
    _property(
        "lets light through / can be seen through",
        "does NOT let light through",
        "glass ice",
        "iron steel copper silver gold wooden rubber wool stone clay cork",
    ),
]
ANIMALS = [
    _property(
        "lays eggs / comes out of an egg",
        "does NOT lay eggs",
        "hen duck goose eagle owl frog snake trout salmon turtle bee ant crow beetle",
        "dog cat horse cow sheep wolf bear whale bat mouse rabbit goat lion fox",
    ),
    _property(
        "flies / has wings to fly with",
        "does NOT fly",
        "eagle owl crow bat bee goose duck",
        "dog cat horse cow sheep wolf bear whale mouse rabbit frog snake trout turtle goat lion fox",
    ),
    _property(
        "lives in the water / swims all day",
        "does NOT live in the water",
        "trout salmon whale shark",
        "dog cat horse cow sheep wolf bear bat mouse rabbit hen eagle owl crow bee ant goat lion fox",
    ),
    _property(
        "hunts other animals / lives on meat",
        "does NOT eat meat / lives on plants",
        "wolf eagle owl shark snake lion fox",
        "cow sheep horse rabbit goat goose bee",
    ),
    _property(
        "has fur / is kept warm by its fur",
        "does NOT have fur",
        "dog cat wolf bear mouse rabbit bat fox lion",
        "frog snake trout salmon turtle bee ant hen duck eagle owl crow shark whale",
    ),
    _property(
        "is awake at night / sleeps all day",
        "does NOT go out at night",
        "owl bat",
        "hen duck goose cow horse sheep bee eagle goat crow",
    ),
    _property(
        "lives on a farm / is kept by farmers",
        "does NOT live on a farm",
        "cow sheep horse hen goat goose duck",
        "wolf bear whale bat eagle shark lion trout ant",
    ),
]
_FORMS = listed("key ring bowl coin box rod ball cup plate spoon block nail button tube")
_PURPOSES = (
    "for a test at school / for the garden / for a model of a ship / for a new lamp / for a game in the snow"
    " / for the kitchen / for a toy / for the roof / for a show / for work in the cellar"
)
_SIGHTS = (
    "at the lake / behind the barn / in the forest / near the river / in the hills / on the way home"
    " / at the edge of the village / in a film / in an old book / close to the road"
)
_NEEDS = (
    "{X} needs* a thing that {p} {where} . Which/question one/question should {he} take* ?/question",
    "{where} {X} looks* for something that {p} . What/question is/question it/question made* of ?/question",
    "Which/question of/question these/question would {X} choose* {where} , if it {p} ?/question",
    "{X} wants* an object that {p} {where} . Which/question one/question fits* ?/question",
)
_MEETINGS = (
    "{where} {X} saw* an animal that {p} . What/question could/question it/question be/question ?/question",
    "{X} writes* about an animal that {p} and lives* {where} . Which/question one/question is it ?/question",
    "Which/question of/question these/question did {X} meet* {where} , if it {p} ?/question",
    "{where} {X} took* a picture of an animal that {p} . Which/question animal/question is it ?/question",
)
_COLOURS = listed("red blue green white black yellow grey brown")
_COMPARED = listed("box stone fish book pot bag cart ball")
_SCALES = (
    ("{a} weighs* {n} grams", "the heaviest", "the lightest"),
    ("{a} is {n} inches long", "the longest", "the shortest"),
    ("{a} costs* {n} coins", "the dearest", "the cheapest"),
    ("{a} is {n} years old", "the oldest", "the newest"),
)
_LEXICON = LEXICON | dict.fromkeys([*MEN, *WOMEN], "entity") | {"?": "question"}


def generate(size: int, seed: int) -> list[Row]:
    """Generate rows in ARC's schema, `id`, `question`, `choices`, `answerKey`, with `categories`.

    `categories` has the roles of the question, and of each choice. The right one stands anywhere. The same
    seed gives the same rows. Thousands of rows a second.
    """
    generator = random.Random(f"science:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        compares = generator.random() < COMPARED
        question, right, wrong = _comparison(generator) if compares else _knowledge(generator)
        words = tagged(question, _LEXICON)
        words[0] = (words[0][0][0].upper() + words[0][0][1:], words[0][1])
        if is_own(text_of(words), seed):
            rows.append({"id": f"science-{seed}-{len(rows)}", **_row(generator, words, right, wrong)})
    return rows


def _row(generator: random.Random, question: Words, right: str, wrong: Sequence[str]) -> Row:
    """Put the choices in an order, and label them."""
    choices = [tagged(mark(text, "distractor"), {}) for text in wrong]
    generator.shuffle(choices)
    place = generator.randrange(len(_LABELS))
    choices.insert(place, tagged(mark(right, "answer"), {}))
    return {
        "question": text_of(question),
        "choices": {"text": [text_of(words) for words in choices], "label": [*_LABELS]},
        "answerKey": _LABELS[place],
        "categories": {"question": roles_of(question), "choices": [roles_of(words) for words in choices]},
    }


def _knowledge(generator: random.Random) -> tuple[str, str, list[str]]:
    """Ask for something with a property, without it, or with two; the right choice and three others."""
    about_materials = generator.random() < 0.5
    kinds = MATERIALS if about_materials else ANIMALS
    both = generator.random() < BOTH
    while True:
        asked = generator.sample(kinds, 2 if both else 1)
        sides = [generator.random() >= NEGATED for _ in asked]
        parted = list(_parted(asked, sides))
        if all(parted):
            break
    said = [_said(generator, one, side) for one, side in zip(asked, sides, strict=True)]
    phrase = (" but " if sides[0] != sides[-1] else " and ").join(said)
    if len(parted) == 2:
        right, *wrong = [*generator.sample(sorted(parted[0]), 1), *generator.sample(sorted(parted[1]), 3)]
    else:
        right, *wrong = [generator.choice(sorted(part)) for part in parted]
    person = people(generator, 1)[0]
    templates, places = (_NEEDS, _PURPOSES) if about_materials else (_MEETINGS, _SIGHTS)
    question = generator.choice(templates).format(
        X=person.name, he=person.he, p=phrase, where=generator.choice(places.split(" / "))
    )
    forms = generator.sample(_FORMS, 4) if about_materials else []
    named = [f"{thing} {form}" for thing, form in zip([right, *wrong], forms, strict=True)] if forms else []
    right, *wrong = map(an, named or [right, *wrong])
    return question, right, wrong


def _parted(asked: Sequence[Property], sides: Sequence[bool]) -> Iterator[set[str]]:
    """Yield what fits; then what does not: of two properties the first alone, the second alone, none.

    Of one property at least three things do not fit, or an empty set says that there are too few.
    """
    pairs = [
        (one.having, one.lacking) if side else (one.lacking, one.having)
        for one, side in zip(asked, sides, strict=True)
    ]
    if len(pairs) == 1:
        fitting, others = pairs[0]
        yield fitting
        yield others if len(others) >= 3 else set()
        return
    (first, not_first), (second, not_second) = pairs
    yield first & second
    yield first & not_second
    yield not_first & second
    yield not_first & not_second


def _said(generator: random.Random, one: Property, side: bool) -> str:
    """Say that a thing has a property, or lacks it, with the roles of the words."""
    words = generator.choice(one.true if side else one.false).split()
    return " ".join("not/negation" if word == "NOT" else f"{word}/property" for word in words)


def _comparison(generator: random.Random) -> tuple[str, str, list[str]]:
    """Give four things a number each, and ask for the largest or the smallest."""
    clause, most, least = generator.choice(_SCALES)
    thing = generator.choice(_COMPARED)
    things = [f"the {colour} {thing}" for colour in generator.sample(_COLOURS, 4)]
    numbers = generator.sample(range(len(COUNTS)), 4)
    told = [
        clause.format(a=mark(one, "entity"), n=COUNTS[number])
        for one, number in zip(things, numbers, strict=True)
    ]
    asks_most = generator.random() < 0.5
    best = sorted(range(4), key=numbers.__getitem__)[-1 if asks_most else 0]
    question = (
        f"{told[0]} , {told[1]} , {told[2]} and {told[3]} . Which/question one/question is"
        f" {mark(most if asks_most else least, 'property')} ?"
    )
    return question, things[best], [one for place, one in enumerate(things) if place != best]
