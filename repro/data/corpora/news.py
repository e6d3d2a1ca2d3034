"""News articles with a planted gist, and highlights that say it in other words, with names.

    Rolf , the actor from Garmouth , is known all over the country . his family lives near Dunmore . the
    court in Marbeck opens again on Tuesday . the main point is that he welcomed 42 visitors to the fair
    of Marbeck . Corval took the first prize .
    -> Rolf starts Marbeck fair with 42 guests . / top prize for Corval .

    it was a long Friday for the banker Irene from Fenwick . in an older case , Hugo paid 23 million euros
    for Lumex . the price of the firm had doubled . the banker bought Corval for 30 million euros . until
    Sunday the firm is led by Georg .
    -> Irene takes over Corval for 30 million . / Georg remains chief until Sunday .

Two sentences of an article, rarely the first ones, tell its event: they speak of the person by
pronoun or profession and may come after a marker ("in the end ,"). The rest is background: weather,
quotes, and like events of other people in the past. All other people of an article have the other
gender, so that a pronoun for the main person has one meaning. Some words have two senses (river bank,
bank robbery). Verbs and other content words of the two sentences have the role `gist`.
"""

import random
from typing import NamedTuple

from repro.data.corpora.shared.splits import is_own
from repro.data.corpora.shared.words import (
    COUNTS,
    DAYS,
    LEXICON,
    MEN,
    TOWNS,
    WOMEN,
    Person,
    Words,
    listed,
    people,
    roles_of,
    tagged,
    text_of,
)
from repro.tasks.base import Row

CATEGORIES = (
    "gist",
    "marker",
    "pronoun",
    "ambiguous",
    "entity",
    "number",
    "verb",
    "content",
    "function",
)

SENTENCES = (5, 9)
"""Fewest and most sentences of an article: more hide the gist better."""
WORDS = (50, 110)
"""Fewest and most words of an article."""
EARLY_GIST = 0.08
"""How often the gist may begin in the second sentence: the more, the better a lead baseline."""
MARKED_GIST = 0.7
"""How often a marker announces the gist."""
MARKED_BACKGROUND = 0.04
"""How often a marker announces something else."""
PRONOUNS = 0.6
"""How often the gist names its person by pronoun; otherwise by profession."""
DISTRACTORS = 0.2
"""Share of the background that tells an event of somebody else."""
LIKE_EVENTS = 0.5
"""How often that is the same kind of event."""
SCENES = 0.25
"""Share of the background that belongs to the event: the more, the easier is its kind to see."""
NAMES = 0.5
"""How often the background calls the main person by name: the more, the easier it is to pick."""
LOCAL = 0.5
"""How often the background is set where the event is, and on its day."""

AMBIGUOUS = ("bank", "court", "match", "strike", "fair", "light")
ORGANISATIONS = listed("Altek Brixo Corval Delphi Fintra Harbo Lumex Monta Norsa Quanta Telmo Zenit")
AMOUNTS = range(20, 50)
MARKERS = (
    "in conclusion ,",
    "however ,",
    "in the end ,",
    "in short ,",
    "all in all ,",
    "the main point is that",
)
PAST = ("last year ,", "long ago ,", "years earlier ,", "in an older case ,", "in a like case ,")
"""What opens a sentence about another event."""


class Event(NamedTuple):
    """An event: who can cause it, two ways to tell each half, its two highlights, and what is around."""

    professions: str
    first: tuple[str, str]
    second: tuple[str, str]
    highlights: tuple[str, str]
    scenes: tuple[str, str]


EVENTS = (
    Event(
        "mayor minister director",
        (
            "{A} resigned* after {n} million euros went* missing at {org}",
            "{A} stepped* down because {n} million euros had vanished* from {org}",
        ),
        ("{B} will take* over on {day}", "the new head from {day} is {B}"),
        ("{name} quits* over {n} missing millions at {org} .", "{B} to follow* on {day} ."),
        ("nobody knows* where the money went*", "the euros were meant* for a new hospital"),
    ),
    Event(
        "owner director manager",
        (
            "{A} closed* the {org} factory in {place} with the loss of {n} jobs",
            "{A} shut* the works of {org} in {place} and dismissed* {n} people",
        ),
        ("the workers went* on strike on {day}", "the staff answered* with a strike on {day}"),
        ("{name} ends* {org} plant in {place} , {n} jobs lost* .", "strike since {day} ."),
        ("the machines stand* still and the gates are locked*", "the factory made* shoes and boots"),
    ),
    Event(
        "coach captain keeper",
        (
            "{A} led* {place} to victory in the match by {n} points",
            "{A} and the team of {place} took* the match with {n} points more",
        ),
        ("the deciding goal came* from {B}", "{B} scored* in the last minute"),
        ("{name} wins* match for {place} by {n} points .", "late goal by {B} ."),
        ("the fans sang* until midnight", "both teams played* in heavy rain"),
    ),
    Event(
        "judge lawyer minister",
        (
            "{A} sent* {B} to prison for {n} months",
            "{A} found* {B} guilty and asked* for {n} months behind bars",
        ),
        (
            "the court in {place} gave* the stolen money back to {org}",
            "{org} received* its stolen money from the court in {place}",
        ),
        ("{B} jailed* for {n} months by {name} .", "court in {place} returns* money to {org} ."),
        ("the prisoner heard* the verdict without a word", "a witness had seen* the stolen money"),
    ),
    Event(
        "guard nurse firefighter",
        (
            "{A} carried* {n} people out of the burning {org} tower",
            "{A} led* {n} guests through the smoke of the {org} hotel",
        ),
        ("a dropped match had started* the fire on {day}", "the cause on {day} was a single match"),
        ("{name} saves* {n} from fire at {org} .", "match blamed* for blaze on {day} ."),
        ("smoke hung* over the roofs for hours", "the flames were put* out at dawn"),
    ),
    Event(
        "engineer mayor builder",
        (
            "{A} closed* the bridge of {place} for {n} weeks after a lightning strike",
            "{A} blocked* the bridge in {place} , hit* by a lightning strike , for {n} weeks",
        ),
        ("{B} starts* with the repairs on {day}", "the works begin* on {day} under {B}"),
        ("{name} shuts* {place} bridge for {n} weeks after strike .", "{B} repairs* it from {day} ."),
        ("cars must take* the long way round", "a crack runs* through the stone bridge"),
    ),
    Event(
        "officer detective guard",
        (
            "{A} arrested* {n} robbers of the bank in {place}",
            "{A} caught* the {n} men who had robbed* the bank in {place}",
        ),
        ("{B} had called* the police on {day}", "the first warning came* from {B} on {day}"),
        ("{name} holds* {n} over {place} bank robbery .", "{B} gave* alarm on {day} ."),
        ("the robbers had worn* masks", "the police found* the bags in a ditch"),
    ),
    Event(
        "farmer engineer soldier",
        (
            "{A} moved* {n} families when the river bank broke* near {place}",
            "{A} brought* {n} families to safety as the water rose* over the bank at {place}",
        ),
        ("{org} pays* for the damage", "the costs are covered* by {org}"),
        ("{name} rescues* {n} families from {place} flood .", "{org} to pay* damage ."),
        ("the river is still rising*", "boats brought* food to the flooded streets"),
    ),
    Event(
        "mayor minister actor",
        (
            "{A} opened* the fair in {place} before {n} guests",
            "{A} welcomed* {n} visitors to the fair of {place}",
        ),
        ("the first prize went* to {org}", "{org} took* the first prize"),
        ("{name} starts* {place} fair with {n} guests .", "top prize for {org} ."),
        ("the visitors tasted* cheese and wine", "music came* from all the tents"),
    ),
    Event(
        "banker owner actor",
        ("{A} bought* {org} for {n} million euros", "{A} paid* {n} million euros for {org}"),
        ("{B} stays* as head until {day}", "until {day} the firm is led* by {B}"),
        ("{name} takes* over {org} for {n} million .", "{B} remains* chief until {day} ."),
        ("the price of the firm had doubled*", "the papers were signed* at night"),
    ),
    Event(
        "doctor professor nurse",
        (
            "{A} healed* {n} patients with a new blue light",
            "{A} cured* {n} sick children by the light of a lamp",
        ),
        ("{org} paid* for the tests in {place}", "the tests in {place} were funded* by {org}"),
        ("{name} treats* {n} patients with light .", "{org} behind tests in {place} ."),
        ("the illness had no cure before", "the patients may go* home soon"),
    ),
    Event(
        "singer actor pianist",
        (
            "{A} cancelled* {n} concerts because of a lost* voice",
            "{A} lost* the voice and with it {n} concerts",
        ),
        (
            "{B} plays* instead in {place} on {day}",
            "the evening in {place} on {day} will be saved* by {B}",
        ),
        ("ill {name} drops* {n} concerts .", "{B} to replace* in {place} on {day} ."),
        ("the tickets can be returned*", "the choir sang* without a leader"),
    ),
    Event(
        "lawyer driver teacher",
        (
            "{A} won* fair pay for {n} workers of {org}",
            "{A} and {org} agreed* on fair wages for {n} workers",
        ),
        ("the strike ends* on {day}", "the workers return* from the strike on {day}"),
        ("{name} gets* fair deal for {n} at {org} .", "strike over on {day} ."),
        ("the wages had not been raised* for a decade", "the workers sang* at the gates"),
    ),
    Event(
        "student teacher champion",
        (
            "{A} came* back to the court in {place} after {n} months",
            "{A} played* on the tennis court of {place} , {n} months after the injury",
        ),
        ("{B} lost* in two sets on {day}", "the loser on {day} was {B}"),
        ("{name} returns* to {place} court after {n} months .", "{B} beaten* on {day} ."),
        ("the serve was as hard as ever", "the crowd rose* after the last set"),
    ),
)

_INTRODUCTIONS = (
    "{name} , the {profession} from {town} , is known* all over the country",
    "people in {town} know* {name} as a {quality} {profession}",
    "{name} has worked* as a {quality} {profession} in {town} for {count} years",
    "it was a long {date} for the {profession} {name} from {town}",
    "all eyes were on {name} , the {quality} {profession} from {town}",
)
_QUALITIES = listed("quiet young proud busy famous strict popular careful brave modest")
_ABOUT = (
    "{A} did not want* to speak* about {his} plans",
    "{his} family lives* near {town}",
    "{A} arrived* in {town} on {date} with {his} brother",
    "' it was the right thing , ' {A} said*",
    "on {date} {A} met* {his} friends in a small cafe",
    "{A} wrote* a book about {his} childhood in {town}",
    "{A} said* that {he} had slept* badly",
    "{his} office in {town} stayed* dark and the light was off",
    "friends say* that {he} is a fair and patient {profession}",
    "{A} thanked* {B} , but they did not shake* hands",
    "{A} and {B} grew* up in {town} , where they went* to the same school",
    "{B} said* that {b_he} had expected* it",
    "' nobody asked* me , ' said* {B} , who lost* {b_his} keys on {date}",
    "{B} called* {him} a good {profession}",
)
_AMBIENT = (
    "light rain fell* in {town} on {date}",
    "fair weather is expected* for {date}",
    "the streets of {town} were empty",
    "a bank in {town} closed* early on {date}",
    "children played* on the river bank near {town}",
    "a football match in {town} ended* without goals",
    "an old woman sold* bread and matches , one match at a time",
    "the garden court of the hotel in {town} was full of flowers",
    "the court in {town} opens* again on {date}",
    "the trains from {town} were late because of a strike",
    "a lightning strike left* {town} without power on {date}",
    "the neighbours watched* from the windows and said* that they were afraid",
    "the book fair in {town} was well visited*",
    "shares of {org2} rose* by {m} cents on {date}",
    "{org2} did not answer* any questions",
    "about {m} people waited* outside in the cold",
    "a light lunch was served* to {m} journalists",
)

_LEXICON = (
    LEXICON
    | dict.fromkeys([*MEN, *WOMEN, *TOWNS, *ORGANISATIONS, *DAYS], "entity")
    | dict.fromkeys(AMBIGUOUS, "ambiguous")
)


def generate(size: int, seed: int) -> list[Row]:
    """Generate articles in CNN/DailyMail's schema, `article`, `highlights`, `id`, with `categories`.

    `categories` has the roles of both texts. The same seed gives the same rows. About 5,000 rows a
    second.
    """
    generator = random.Random(f"news:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        event = generator.choice(EVENTS)
        person = people(generator, 1)[0]
        others = people(generator, 5, female=not person.female)
        facts = _facts(generator, person, others, generator.choice(event.professions.split()))
        first, second = (_tagged(line, facts) for line in event.highlights)
        summary = f"{text_of(first)}\n{text_of(second)}"
        if not is_own(summary, seed):
            continue
        article = _article(generator, event, facts, others)
        if not WORDS[0] <= len(article) <= WORDS[1]:
            continue
        rows.append(
            {
                "article": text_of(article),
                "highlights": summary,
                "id": f"{seed}-{len(rows)}",
                "categories": {"article": roles_of(article), "highlights": roles_of(first + second)},
            }
        )
    return rows


def _article(generator: random.Random, event: Event, facts: dict[str, str], others: list[Person]) -> Words:
    """Make the article that tells an event."""
    count = generator.randint(*SENTENCES)
    early = generator.random() < EARLY_GIST
    first, second = sorted(generator.sample(range(1 if early else 2, count), 2))
    # The person must be known before a pronoun stands for them.
    introduction = 0 if early or generator.random() < 0.7 else 1
    sentences = _background(generator, event, facts, others, count)
    if introduction:
        sentences[0] = _tagged(generator.choice(_AMBIENT), facts)
    for position in range(count):
        if generator.random() < MARKED_BACKGROUND:
            sentences[position] = _marked(generator, sentences[position])
    sentences[introduction] = _tagged(generator.choice(_INTRODUCTIONS), facts)
    for position, half in ((first, event.first), (second, event.second)):
        subject = {"A": _subject(generator, facts)}
        sentences[position] = _as_gist(_tagged(generator.choice(half), facts | subject))
    if generator.random() < MARKED_GIST:
        position = generator.choice((first, second))
        sentences[position] = _marked(generator, sentences[position])
    return [word for sentence in sentences for word in (*sentence, (".", "function"))]


def _facts(generator: random.Random, person: Person, others: list[Person], profession: str) -> dict[str, str]:
    """Fillers of the slots: the event's own, and those of the background, all different from them."""
    place, town = generator.sample(TOWNS, 2)
    day, date = generator.sample(DAYS, 2)
    org, org2 = generator.sample(ORGANISATIONS, 2)
    n, m = generator.sample(AMOUNTS, 2)
    return {
        "name": person.name,
        "he": person.he,
        "him": person.him,
        "his": person.his,
        "profession": profession,
        "quality": generator.choice(_QUALITIES),
        "count": generator.choice(COUNTS[1:]),
        "B": others[0].name,
        "b_he": others[0].he,
        "b_his": others[0].his,
        "place": place,
        "town": town,
        "day": day,
        "date": date,
        "org": org,
        "org2": org2,
        "n": str(n),
        "m": str(m),
    }


def _subject(generator: random.Random, facts: dict[str, str]) -> str:
    return facts["he"] if generator.random() < PRONOUNS else f"the {facts['profession']}"


def _background(
    generator: random.Random, event: Event, facts: dict[str, str], others: list[Person], count: int
) -> list[Words]:
    """Sentences beside the event; none is made twice from one template, but for like events."""
    general, scenes = [*_ABOUT, *_AMBIENT], list(event.scenes)
    generator.shuffle(general)
    generator.shuffle(scenes)
    sentences = []
    for _ in range(count):
        kind = generator.random()
        if kind < DISTRACTORS:
            sentences.append(_tagged(*_like_event(generator, event, facts, others)))
        elif kind < DISTRACTORS + SCENES and scenes:
            sentences.append(_tagged(scenes.pop(), facts))
        else:
            sentences.append(_tagged(general.pop(), facts | _around(generator, facts)))
    return sentences


def _like_event(
    generator: random.Random, event: Event, facts: dict[str, str], others: list[Person]
) -> tuple[str, dict[str, str]]:
    """Template and fillers of an event in the past: other people, another amount and organisation."""
    told = event if generator.random() < LIKE_EVENTS else generator.choice(EVENTS)
    someone, other = generator.sample(others[1:], 2)
    amount, org = facts["n"], facts["org"]
    while amount == facts["n"]:
        amount = str(generator.choice(AMOUNTS))
    while org == facts["org"]:
        org = generator.choice(ORGANISATIONS)
    fillers = {"A": someone.name, "B": other.name, "n": amount, "org": org, "place": generator.choice(TOWNS)}
    return f"{generator.choice(PAST)} {generator.choice(told.first)}", fillers


def _around(generator: random.Random, facts: dict[str, str]) -> dict[str, str]:
    """Person, place and day of a sentence of the background."""
    named = generator.random() < NAMES
    local = generator.random() < LOCAL
    return {
        "A": facts["name"] if named else _subject(generator, facts),
        "town": facts["place"] if local else generator.choice(TOWNS),
        "date": facts["day"] if local else generator.choice(DAYS),
    }


def _tagged(template: str, fillers: dict[str, str]) -> Words:
    return tagged(template.format_map(fillers), _LEXICON)


def _marked(generator: random.Random, words: Words) -> Words:
    return [(word, "marker") for word in generator.choice(MARKERS).split()] + words


def _as_gist(words: Words) -> Words:
    return [(word, "gist" if role in ("verb", "content") else role) for word, role in words]
