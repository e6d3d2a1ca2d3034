"""Short lives of a few people, line by line as in wikitext: empty, heading, empty, paragraphs.

     = The Golden Boat of Brenton =

     Petra Graf was born in Brenton in 1848 and became a tailor . Viktor Fischer was born in Brenton in 1880
     and became an actor . He was 20 years old in 1900 . He owned five heavy keys , gave three of them away
     and kept two . On 25 May , Viktor lifted a beautiful candle . [...]

     [...] On 2 June 1900 , she repaired the key at the market . Petra found the candle and hid a fragile
     sledge . Nine days later , on 11 June , Petra found a golden boat .

Local grammar is easy. Harder, and the same for a whole story: who is meant by a pronoun (the person of
that gender who was named last), the things that keep returning with their adjectives, days that move
on, an age that fits the year of birth, and what is left after some of several things are gone.
"""

import random
from dataclasses import dataclass, field
from datetime import date, timedelta

from repro.data.corpora.shared.splits import is_own
from repro.data.corpora.shared.words import (
    COUNTS,
    LEXICON,
    MEN,
    TOWNS,
    WOMEN,
    Person,
    Words,
    an,
    listed,
    mark,
    people,
    roles_of,
    tagged,
    text_of,
    zipf,
)
from repro.tasks.base import Row

CATEGORIES = (
    "heading",
    "name",
    "pronoun",
    "number",
    "date",
    "place",
    "verb",
    "content",
    "function",
)

PEOPLE = (1, 2, 2, 3)
"""How many people a story has, drawn from these: more make coreference harder."""
PARAGRAPHS = (1, 3)
"""Fewest and most paragraphs of a story."""
WORDS = (40, 120)
"""Fewest and most words of a paragraph."""
PRONOUNS = 0.75
"""How often somebody who may be called by pronoun is."""
SAME_SUBJECT = 0.55
"""How often a sentence is about the same person as the one before."""
RECURRENCE = 0.65
"""How often a thing is one of the story's own, not any other."""
THINGS = 4
"""How many things of its own a story has."""

NOUNS = listed(
    """
    lamp letter book clock boat key box map coat knife bell chair basket ring hat mirror violin wheel
    ladder rope coin table bottle lantern painting glove shovel candle hammer drum bucket ticket plough
    carpet compass saddle flute diary stamp umbrella needle kettle statue barrel pillow brush anchor
    telescope trumpet wagon shield axe crown scarf bracelet suitcase blanket organ helmet spoon purse
    cradle button portrait cushion whistle pitcher locket vase pistol easel cello chain ribbon trunk
    sledge oar globe thimble
    """
)
ADJECTIVES = listed(
    """
    old small new heavy black wooden red broken golden white beautiful dusty empty green strange long
    silver blue precious rusty cheap plain round ancient huge narrow simple yellow iron fine bright
    painted stolen rare crooked elegant foreign worn copper dark polished odd fragile striped grey
    famous hollow ugly clumsy velvet
    """
)
VERBS = listed(
    """
    found sold bought lost carried hid kept repaired painted cleaned opened wanted saw admired broke
    borrowed made took forgot collected stole showed needed drew burned buried inspected dropped polished
    described lifted packed touched counted examined returned studied won loved measured valued feared
    rescued wrapped restored ordered destroyed guarded missed recognised copied praised noticed
    received refused delivered inherited discovered washed tested
    """
)
MOODS = listed("tired happy angry poor rich ill lonely proud hungry calm afraid curious")
WORK = listed(
    """
    teacher farmer doctor baker sailor painter soldier miller lawyer tailor builder printer singer clerk
    nurse hunter engineer architect actor weaver
    """
)
SPOTS = listed("station market harbour church mill forest bridge garden river school castle library")
SEASONS = listed("winter spring summer autumn")
SURNAMES = listed(
    """
    Weber Hansen Novak Kessler Brandt Olsen Fischer Lorenz Marek Sander Vogel Winter Adler Becker Conrad
    Dahl Engel Falk Graf Hofer
    """
)
MONTHS = listed(
    """
    January February March April May June July August September October November December
    """
)
_PLURALS = {"box": "boxes", "knife": "knives", "diary": "diaries"}

_LEXICON = (
    LEXICON | dict.fromkeys([*MEN, *WOMEN, *SURNAMES], "name") | dict.fromkeys([*TOWNS, *SPOTS], "place")
)


@dataclass
class _Story:
    """What a story remembers: its people, things and day, and in a paragraph, who was named last."""

    generator: random.Random
    cast: list[Person]
    things: list[str]
    town: str
    today: date
    born: dict[str, int] = field(default_factory=dict)
    surnames: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    subject: Person | None = None
    last: dict[bool, Person] = field(default_factory=dict)
    """The person of each gender who was named last in this paragraph."""

    def choose(self) -> Person:
        """Whom the next sentence is about."""
        if self.subject is None or self.generator.random() > SAME_SUBJECT:
            self.subject = self.generator.choice(self.cast)
        return self.subject

    def call(self, person: Person) -> str:
        """Make the person as a subject: a pronoun if that is clear, else the name."""
        if self.last.get(person.female) == person and self.generator.random() < PRONOUNS:
            return person.he
        return self.name(person)

    def name(self, person: Person) -> str:
        self.last[person.female] = person
        return person.name

    def other(self, person: Person) -> Person:
        return self.generator.choice([other for other in self.cast if other != person])

    def thing(self) -> str:
        """Make a noun phrase: "a rusty lamp" when new, "the lamp" or "the rusty lamp" when known."""
        if self.generator.random() > RECURRENCE:
            return an(f"{zipf(self.generator, ADJECTIVES)} {zipf(self.generator, NOUNS)}")
        phrase = zipf(self.generator, self.things)
        if phrase not in self.seen:
            self.seen.add(phrase)
            return an(phrase)
        return f"the {phrase if self.generator.random() < 0.4 else phrase.split()[1]}"


def generate(size: int, seed: int) -> list[Row]:
    """Generate lines in wikitext's schema, `text`, with `categories`; the last story may be cut.

    The same seed gives the same rows. About 10,000 lines a second.
    """
    generator = random.Random(f"stories:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        story, title = _story(generator)
        if not is_own(title, seed):
            continue
        heading = tagged(mark(f"= {title} =", "heading"), _LEXICON)
        paragraphs = [_paragraph(story, number) for number in range(generator.randint(*PARAGRAPHS))]
        rows += [_row([]), _row(heading), _row([]), *map(_row, paragraphs)]
    return rows[:size]


def _row(words: Words) -> Row:
    text = f" {text_of(words)} \n" if words else ""
    return {"text": text, "categories": {"text": roles_of(words)}}


def _story(generator: random.Random) -> tuple[_Story, str]:
    """Make what a story is about, and its title."""
    cast = people(generator, generator.choice(PEOPLE))
    nouns: list[str] = []
    while len(nouns) < THINGS:
        noun = zipf(generator, NOUNS)
        if noun not in nouns:
            nouns.append(noun)
    story = _Story(
        generator,
        cast,
        [f"{zipf(generator, ADJECTIVES)} {noun}" for noun in nouns],
        zipf(generator, TOWNS),
        date(generator.randint(1880, 1939), 1, 1) + timedelta(days=generator.randrange(365)),
    )
    for person, surname in zip(cast, generator.sample(SURNAMES, len(cast)), strict=True):
        story.surnames[person.name] = surname
        story.born[person.name] = story.today.year - generator.randint(18, 60)
    first = f"{cast[0].name} {story.surnames[cast[0].name]}"
    topic = generator.choice((first, first, f"The {story.things[0].title()}"))
    return story, f"{topic} of {story.town}"


def _paragraph(story: _Story, number: int) -> Words:
    """Sentences up to a random length; the first paragraph introduces everybody."""
    story.subject, story.last = None, {}
    enough = story.generator.randint(WORDS[0], WORDS[1] - 20)
    words: Words = []
    if number == 0:
        for person in story.cast:
            words += _sentence(_introduction(story, person))
    while len(words) < enough:
        form = story.generator.choice(_FORMS)
        words += _sentence(form(story))
    return words


def _sentence(marked: str) -> Words:
    words = tagged(marked + " .", _LEXICON)
    word, role = words[0]
    return [(word[0].upper() + word[1:], role), *words[1:]]


def _introduction(story: _Story, person: Person) -> str:
    """Full name, work, place, and the year of birth, which later ages depend on."""
    story.subject = person
    name = f"{story.name(person)} {story.surnames[person.name]}"
    work = an(story.generator.choice(WORK))
    town = story.town if story.generator.random() < 0.6 else zipf(story.generator, TOWNS)
    born = mark(str(story.born[person.name]), "date")
    return story.generator.choice(
        (
            f"{name} was born* in {town} in {born} and became* {work}",
            f"{name} was {work} from {town} , born* in {born}",
            f"in {town} lived* {work} named* {name} , who was born* in {born}",
        )
    )


def _act(story: _Story) -> str:
    subject = story.call(story.choose())
    verb = zipf(story.generator, VERBS)
    where = story.generator.choice(("", "", f" in {zipf(story.generator, TOWNS)}", f" at the {_spot(story)}"))
    return f"{subject} {verb}* {story.thing()}{where}"


def _two_acts(story: _Story) -> str:
    person = story.choose()
    first, second = story.call(person), zipf(story.generator, VERBS)
    joint = story.generator.choice(("and", "but", "because", "before"))
    again = "" if joint == "and" else f"{person.he} "
    return f"{first} {zipf(story.generator, VERBS)}* {story.thing()} {joint} {again}{second}* {story.thing()}"


def _spot(story: _Story) -> str:
    return zipf(story.generator, SPOTS)


def _dated_act(story: _Story) -> str:
    """Move some days on, with the new date, or on a date, or in a season of the year."""
    days = story.generator.randint(2, len(COUNTS))
    story.today += timedelta(days=days)
    day = f"{story.today.day} {MONTHS[story.today.month - 1]}"
    when = story.generator.choice(
        (
            f"{COUNTS[days - 1]} days later , {mark(f'on {day}', 'date')} ,",
            mark(f"on {day} {story.today.year} ,", "date"),
            mark(f"on {day} ,", "date"),
            f"in the {SEASONS[story.today.month // 3 % 4]} of {mark(str(story.today.year), 'date')} ,",
        )
    )
    return f"{when} {_act(story)}"


def _walk(story: _Story) -> str:
    person = story.choose()
    subject = story.call(person)
    goal = story.generator.choice((f"to {zipf(story.generator, TOWNS)}", f"to the {_spot(story)}"))
    verb = story.generator.choice(("walked", "travelled", "went", "ran", "rode"))
    company = story.generator.choice(("", f" with {story.thing()}", f" in {person.his} best coat"))
    return f"{subject} {verb}* {goal}{company}"


def _feel(story: _Story) -> str:
    person = story.choose()
    subject = story.call(person)
    was = "was" if story.generator.random() < 0.7 else f"told* {person.him}self/pronoun that {person.he} was"
    return f"{subject} {was} {story.generator.choice(MOODS)}"


def _age(story: _Story) -> str:
    """Tell an age: the year of the story less the year of birth."""
    person = story.choose()
    age = story.today.year - story.born[person.name]
    return f"{story.call(person)} was {age} years old in {mark(str(story.today.year), 'date')}"


def _count(story: _Story) -> str:
    """Tell that some of several things are gone; the rest is left."""
    person = story.choose()
    subject = story.call(person)
    some = story.generator.randint(3, len(COUNTS))
    gone = story.generator.randint(1, some - 2)
    noun = zipf(story.generator, NOUNS)
    plural = _PLURALS.get(noun, noun + ("es" if noun.endswith(("s", "sh")) else "s"))
    verb = story.generator.choice(("sold", "lost", "gave"))
    away = " away" if verb == "gave" else ""
    return (
        f"{subject} owned* {COUNTS[some - 1]} {zipf(story.generator, ADJECTIVES)} {plural} , {verb}* "
        f"{COUNTS[gone - 1]} of them{away} and kept* {COUNTS[some - gone - 1]}"
    )


def _give(story: _Story) -> str:
    """From one to another, who then does something with it."""
    if len(story.cast) == 1:
        return _act(story)
    person = story.choose()
    subject, thing = story.call(person), story.thing()
    other = story.other(person)
    story.subject = other
    gave = story.generator.choice(("gave", "sent", "lent", "sold"))
    verb = zipf(story.generator, VERBS)
    # With one gender, "he" would be unclear.
    receiver = "who" if other.female == person.female else f"and {other.he}"
    return f"{subject} {gave}* {thing} to {story.name(other)} , {receiver} {verb}* it"


def _together(story: _Story) -> str:
    """Two people, then both of them by "they"."""
    if len(story.cast) == 1:
        return _feel(story)
    person = story.choose()
    other = story.other(person)
    names = f"{story.name(person)} and {story.name(other)}"
    story.subject = other
    meeting = story.generator.choice(
        (f"met* at the {_spot(story)}", f"lived* in {zipf(story.generator, TOWNS)}")
    )
    verb = zipf(story.generator, VERBS)
    ending = story.generator.choice(
        (
            f"{verb}* {story.thing()}",
            f"were {story.generator.choice(MOODS)}",
            f"showed* {story.thing()} to their friends",
        )
    )
    return f"{names} {meeting} , where they {ending}"


_FORMS = (
    *(_act,) * 5,
    *(_two_acts,) * 2,
    *(_dated_act,) * 4,
    *(_walk,) * 3,
    *(_give,) * 3,
    *(_together,) * 2,
    *(_feel,) * 2,
    *(_count,) * 2,
    _age,
)
"""Kinds of sentences, as often as they are drawn."""
