"""Paragraphs about deeds of people, each with a question that two constraints single out.

    In 1922 Anna Otto built the northern lighthouse in Kelso . Emma Lind built the mill in Lunden in 1922 .
    In 1926 , the mill in Kelso was built by Ida Berg . In 1958 , it was bought by her .
    By whom was the mill in Kelso built ? -> Ida Berg

    Adam Berg ordered 14 horses in Dunwick in 1950 . In 1862 , 5 horses in Norvik were ordered by Carl
    Stein . In 1950 Jonas Otto ordered 36 horses in Norvik . In 1970 he also directed the grand theatre
    in Dunwick . How many horses were ordered in Norvik in 1950 ? -> 36, or 36 horses

A passage is a list of facts (who did what to which thing, where, when, how many). Other facts share
one of the constraints, and often the relation, with the one that is asked about, so that neither the
type of the answer nor a single matching word is enough. Some facts follow another one with pronouns: "She
sold it"; then the answer, or a constraint, is in the sentence before.
"""

import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from repro.data.corpora.shared.words import listed
from repro.tasks.base import Row

CATEGORIES = (
    "question",  # of the question: the words that say what is asked for ("In which year", "Who")
    "constraint",  # of the question: the things that single the answer out, with their prepositions
    "answer",  # inside a gold answer
    "distractor",  # other things of the answer's type in the passage
    "entity",  # all other people, things and places
    "number",  # all other years and amounts
    "pronoun",
    "verb",  # the relation; auxiliaries are function words
    "content",
    "function",
)

# Difficulty. Shares are of all cases where the thing is possible.
MIN_FACTS, MAX_FACTS = 4, 6  # sentences with facts
MAX_FILLERS = 2  # sentences without
MIN_WORDS, MAX_WORDS = 40, 110  # of the passage
PEOPLE, PLACES, YEARS, OBJECTS = 4, 3, 5, 3  # that a passage is about; objects of each group
FOLLOWED = 0.5  # facts that have a second one, about the same person or thing
PRONOUNS = 0.6  # second facts that are told with pronouns
SYNONYM = 0.1  # verbs of passages that are not the question's
PASSIVE = 0.35  # sentences in the passive voice
NEAR_MISS = 0.35  # constraints that a fact of the same relation shares, for others it is another relation
SHARED_BY_OTHERS = 0.4  # facts of another relation that share two things with the one asked about
TWO_ANSWERS = 0.33  # rows with two gold answers, where there are two; about 20 % of all rows

_T = TypeVar("_T")


class Fact(NamedTuple):
    """Who did what. An object is a thing with or without an adjective, or goods if there is an amount."""

    relation: str
    person: str
    object: str
    place: str
    year: str
    amount: str = ""


class Plan(NamedTuple):
    """What a passage tells and what the question asks.

    `units`: facts that are told together; the second one may have pronouns.
    `asked`: the role that is asked for in `target`; `constraints`: the roles that single it out.
    """

    units: list[list[Fact]]
    target: Fact
    asked: str
    constraints: tuple[str, ...]


class _Token(NamedTuple):
    word: str
    tag: str  # a role, or a category
    entity: str = ""  # the value of the role, for every word of it


_WOMEN = listed("Anna Clara Emma Helen Ida Lena Maria Nora Olga Vera")
_MEN = listed("Adam Bruno Carl David Felix Hugo Jonas Leo Oscar Paul")
_SURNAMES = listed(
    """
    Adler Berg Brandt Dahl Engel Falk Graf Holm Jensen Keller Lind Moser Nilsen Otto Palmer Reed
    Stein Thorn Voss Winter
    """
)
_PLACES = listed(
    """
    Velmora Tarnby Osterlin Kelso Brimont Dunwick Fallow Garnet Harrow Ilmen Jarrow Korvall Lunden
    Marrow Norvik Pellan Rostow Selby Torvald Upton
    """
)
_AMOUNTS = [str(amount) for amount in range(2, 41)]
_YEARS = [str(year) for year in range(1850, 2000, 4)]
_GROUPS = {
    "institution": listed("museum school choir theatre library"),
    "building": listed("mill bridge tower chapel lighthouse station"),
    "work": listed("opera novel poem song"),
    "picture": listed("portrait mural landscape"),
    "contest": listed("race regatta tournament"),
    "goods": listed("boats clocks bells horses lamps"),
}
_ADJECTIVES = listed("old new small grand white famous northern royal")
# Base, past and participle of a verb and of its synonym; the groups of things it can be about.
_RELATIONS: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "found": (("found founded founded", "establish established established"), ("institution",)),
    "lead": (("lead led led", "direct directed directed"), ("institution",)),
    "visit": (("visit visited visited", "tour toured toured"), ("institution", "building")),
    "build": (("build built built", "erect erected erected"), ("building",)),
    "restore": (("restore restored restored", "repair repaired repaired"), ("building", "picture")),
    "buy": (("buy bought bought", "acquire acquired acquired"), ("building", "picture")),
    "write": (("write wrote written", "compose composed composed"), ("work",)),
    "paint": (("paint painted painted", "draw drew drawn"), ("picture",)),
    "win": (("win won won", "claim claimed claimed"), ("contest",)),
    "sell": (("sell sold sold", "deliver delivered delivered"), ("goods",)),
    "order": (("order ordered ordered", "request requested requested"), ("goods",)),
}
_TRADES = ("sell", "order")  # have an amount
_ACTIVE = (
    "{person} {past} {object} {place} {year} .",
    "{year} {person} {past} {object} {place} .",
    "{person} {past} {object} {place} {year} , {remark} .",
)
_PASSIVE = (
    "{object} {place} {was} {participle} by {agent} {year} .",
    "{year} , {object} {place} {was} {participle} by {agent} .",
)
_FOLLOWING = (
    "{person} then {past} {object} {place} {year} .",
    "{year} {person} also {past} {object} {place} .",
)
_REMARKS = (
    "to the joy of the town",
    "after a long debate",
    "with little money",
    "against all advice",
    "with the help of friends",
)
_FILLERS = (
    "The winters were long and the roads were bad .",
    "The newspapers said little about those years .",
    "Many families left the region .",
    "The harvest was poor .",
    "Old letters tell the story .",
    "Nobody is certain of the details .",
)
_CONTENT = listed(
    """
    joy town long debate little money advice help friends winters roads bad newspapers said years
    families left region harvest poor old letters tell story certain details
    """
)
_TITLES = ("History", "Heritage", "Culture", "Trade", "Chronicle")
# For each role that is asked for: the roles that single it out, and the questions.
_QUESTIONS: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "person": [
        (
            ("object", "place"),
            ("Who {past} {object} {place} ?", "By whom was {object} {place} {participle} ?"),
        ),
        (
            ("object", "year"),
            ("Who {past} {object} {year} ?", "Which person {past} {object} {year} ?"),
        ),
    ],
    "year": [
        (
            ("person", "object"),
            ("In which year did {person} {base} {object} ?", "When did {person} {base} {object} ?"),
        ),
        (("object", "place"), ("When was {object} {place} {participle} ?",)),
    ],
    "place": [
        (
            ("person", "object"),
            ("Where did {person} {base} {object} ?", "In which town did {person} {base} {object} ?"),
        ),
        (("object", "year"), ("Where was {object} {participle} {year} ?",)),
    ],
    "object": [
        (("person", "place"), ("What did {person} {base} {place} ?",)),
        (("person", "year"), ("What did {person} {base} {year} ?",)),
        (("place", "year"), ("What was {participle} {place} {year} ?",)),
    ],
    "amount": [
        (("object", "person", "year"), ("How many {object} did {person} {base} {year} ?",)),
        (("object", "person", "place"), ("How many {object} did {person} {base} {place} ?",)),
        (("object", "place", "year"), ("How many {object} were {participle} {place} {year} ?",)),
    ],
}
_ASKED = {"person": 0.27, "year": 0.2, "place": 0.15, "object": 0.18, "amount": 0.2}
_QUESTION_WORDS = {"By", "whom", "In", "which", "year", "town", "person", "How", "many"}
_QUESTION_WORDS |= {"Who", "Which", "When", "Where", "What"}


class _World:
    """The few people, places, years and things that one passage is about."""

    def __init__(self, generator: random.Random) -> None:
        self.random = generator
        first = generator.sample(_WOMEN + _MEN, PEOPLE)
        # Surnames differ, so that one alone names a person.
        last = generator.sample(_SURNAMES, PEOPLE)
        self.people = [f"{one} {other}" for one, other in zip(first, last, strict=True)]
        self.places = generator.sample(_PLACES, PLACES)
        self.years = generator.sample(_YEARS, YEARS)
        self._objects: dict[str, list[str]] = {}

    def objects(self, group: str) -> list[str]:
        if group not in self._objects:
            nouns = self.random.sample(_GROUPS[group], OBJECTS)
            if group != "goods":
                nouns = [self._with_adjective(noun) for noun in nouns]
            self._objects[group] = nouns
        return self._objects[group]

    def _with_adjective(self, noun: str) -> str:
        return f"{_pick(self.random, _ADJECTIVES)} {noun}" if self.random.random() < 0.5 else noun

    def fact(self, relation: str) -> Fact:
        """Make a fact of the relation; all else by chance."""
        return Fact(
            relation,
            _pick(self.random, self.people),
            _pick(self.random, self.objects(_pick(self.random, _RELATIONS[relation][1]))),
            _pick(self.random, self.places),
            _pick(self.random, self.years),
            _pick(self.random, _AMOUNTS) if relation in _TRADES else "",
        )


def matches(fact: Fact, plan: Plan) -> bool:
    """Tell whether the question's relation and constraints hold of the fact."""
    return fact.relation == plan.target.relation and all(
        getattr(fact, role) == getattr(plan.target, role) for role in plan.constraints
    )


def generate(size: int, seed: int) -> list[Row]:
    """Generate rows of SQuAD's schema: `id`, `title`, `context`, `question`, `answers`, with `categories`.

    `categories` has the roles of the words of `context` and of `question`. The first answer is the
    full one ("Anna Berg", "the old mill", "12"), a second one is "Berg", "old mill" or "12 boats".
    The same seed gives the same rows. Thousands of rows a second.
    """
    generator = random.Random(f"reading:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        row = _row(generator, plan_passage(generator))
        if MIN_WORDS <= len(row["categories"]["context"]) <= MAX_WORDS:
            rows.append({"id": f"reading-{seed}-{len(rows)}", **row})
    return rows


def plan_passage(generator: random.Random) -> Plan:
    """Choose facts of which exactly one answers the question."""
    asked = generator.choices(list(_ASKED), list(_ASKED.values()))[0]
    relation = _pick(generator, [name for name in _RELATIONS if (name in _TRADES) == (asked == "amount")])
    constraints = _pick(generator, _QUESTIONS[asked])[0]
    while True:
        plan = _try_plan(generator, relation, asked, constraints)
        facts = [fact for unit in plan.units for fact in unit]
        # Nothing is founded twice in one place.
        deeds = [(fact.relation, fact.object, fact.place) for fact in facts if not fact.amount]
        candidates = {getattr(fact, asked) for fact in facts} - {""}
        one_answer = sum(matches(fact, plan) for fact in facts) == 1
        if one_answer and len(candidates) > 1 and len(set(deeds)) == len(deeds):
            return plan


def _try_plan(generator: random.Random, relation: str, asked: str, constraints: tuple[str, ...]) -> Plan:
    world = _World(generator)
    target = world.fact(relation)
    # If all distractors were near misses, one matching word would gain nothing to learn from.
    distractors = [
        (_near_miss if generator.random() < NEAR_MISS else _sharing)(world, target, role)
        for role in constraints
        if role != "object" or not target.amount  # the goods are in all of them: "how many boats"
    ]
    units = [[target], *([fact] for fact in distractors)]
    for _ in range(generator.randint(MIN_FACTS, MAX_FACTS) - len(units)):
        single = [unit for unit in units if len(unit) == 1]
        if single and generator.random() < FOLLOWED:
            unit = _pick(generator, single)
            related = _related(world, unit[0])
            unit.insert(related.year >= unit[0].year, related)  # "then" is true
        else:
            units.append([_other(world, target)])
    generator.shuffle(units)
    return Plan(units, target, asked, constraints)


def _near_miss(world: _World, target: Fact, role: str) -> Fact:
    """Make a fact of this relation that shares this role (and the goods) with the target, and no other."""
    shared = {role, "object"} if target.amount else {role}
    differ = {"person", "object", "place", "year"} - shared | ({"amount"} if target.amount else set())
    while True:
        fact = world.fact(target.relation)
        fact = fact._replace(**{name: getattr(target, name) for name in shared})
        if all(getattr(fact, name) != getattr(target, name) for name in differ):
            return fact


def _sharing(world: _World, target: Fact, role: str) -> Fact:
    """Make a fact of another relation that shares this role with the target."""
    names = [name for name in _RELATIONS if name != target.relation]
    if target.amount:
        names = [name for name in names if name in _TRADES]
    elif role == "object":
        group = _group(target)
        names = [name for name in names if group in _RELATIONS[name][1]]
    if not names:  # nothing else is done with songs
        return _near_miss(world, target, role)
    return world.fact(_pick(world.random, names))._replace(**{role: getattr(target, role)})


def _other(world: _World, target: Fact) -> Fact:
    """Make a fact of another relation, about two of the target's things; with an amount if it has one."""
    relations = _TRADES if target.amount and world.random.random() < 0.5 else tuple(_RELATIONS)
    fact = world.fact(_pick(world.random, [name for name in relations if name != target.relation]))
    if world.random.random() < SHARED_BY_OTHERS:
        roles = world.random.sample(["person", "place", "year"], 2)
        fact = fact._replace(**{role: getattr(target, role) for role in roles})
    return fact


def _related(world: _World, fact: Fact) -> Fact:
    """Make a fact of another relation about the same person, or the same thing in the same place, or both."""
    group = _group(fact)
    others = [name for name in _RELATIONS if name != fact.relation]
    same_group = [name for name in others if group in _RELATIONS[name][1] and not fact.amount]
    form = world.random.random()
    if same_group and form < 0.6:
        related = world.fact(_pick(world.random, same_group))._replace(object=fact.object, place=fact.place)
        return related._replace(person=fact.person) if form < 0.2 else related
    return world.fact(_pick(world.random, others))._replace(person=fact.person)


def _group(fact: Fact) -> str:
    return next(name for name, nouns in _GROUPS.items() if fact.object.split()[-1] in nouns)


def _row(generator: random.Random, plan: Plan) -> Row:
    sentences: list[Sequence[_Token]] = []
    place = 0  # of the sentence with the answer
    fillers = generator.sample(_FILLERS, generator.randint(0, MAX_FILLERS))
    gaps = [generator.randint(0, len(plan.units)) for _ in fillers]
    for index, unit in enumerate(plan.units):
        sentences += [_plain(text) for text, gap in zip(fillers, gaps, strict=True) if gap == index]
        for number, fact in enumerate(unit):
            sentences.append(_told(generator, fact, unit[0] if number else None))
            if fact == plan.target:
                place = len(sentences) - 1
                # With a pronoun for the answer, the answer is in the sentence before.
                place -= not _positions(sentences[place], plan)
    sentences += [_plain(text) for text, gap in zip(fillers, gaps, strict=True) if gap == len(plan.units)]
    tokens = [token for sentence in sentences for token in sentence]
    before = sum(len(sentence) for sentence in sentences[:place])
    spans = _spans(generator, plan, [before + position for position in _positions(sentences[place], plan)])
    inside = {position for span in spans for position in span}
    words = [token.word for token in tokens]
    question = _question(generator, plan)
    return {
        "title": _pick(generator, _TITLES),
        "context": " ".join(words),
        "question": " ".join(token.word for token in question),
        "answers": {
            "text": [" ".join(words[position] for position in span) for span in spans],
            "answer_start": [sum(len(word) + 1 for word in words[: span[0]]) for span in spans],
        },
        "categories": {
            "context": [_category(token, plan, at in inside) for at, token in enumerate(tokens)],
            "question": [token.tag for token in question],
        },
    }


def _positions(sentence: Sequence[_Token], plan: Plan) -> list[int]:
    """Where the answer is in a sentence, if at all."""
    answer = getattr(plan.target, plan.asked)
    return [position for position, token in enumerate(sentence) if token.entity == answer]


def _spans(generator: random.Random, plan: Plan, full: list[int]) -> list[list[int]]:
    """Locate the full answer, and perhaps of a second one."""
    if plan.asked in ("year", "place") or generator.random() > TWO_ANSWERS:
        return [full]
    if plan.asked == "amount":
        return [full, [*full, full[-1] + 1]]  # with the goods
    return [full, full[1:]]  # the surname, or without the article


def _category(token: _Token, plan: Plan, inside: bool) -> str:
    if inside:
        return "answer"
    if token.tag == plan.asked and token.entity != getattr(plan.target, plan.asked):
        return "distractor"
    if token.tag in ("person", "object", "place"):
        return "entity"
    return "number" if token.tag in ("year", "amount") else token.tag


def _told(generator: random.Random, fact: Fact, before: Fact | None) -> list[_Token]:
    """Make a sentence with the fact; with pronouns for what it shares with the fact told before."""
    forms = _RELATIONS[fact.relation][0][generator.random() < SYNONYM]
    slots = _slots(fact, forms)
    templates = _PASSIVE if generator.random() < PASSIVE else _ACTIVE
    if before and generator.random() < PRONOUNS:
        if fact.person == before.person:
            woman = fact.person.split()[0] in _WOMEN
            slots["person"] = [_Token("she" if woman else "he", "pronoun")]
            slots["agent"] = [_Token("her" if woman else "him", "pronoun")]
            templates = _PASSIVE if templates is _PASSIVE else _FOLLOWING
        if not fact.amount and (fact.object, fact.place) == (before.object, before.place):
            slots["object"], slots["place"] = [_Token("it", "pronoun")], []
    slots["remark"] = _plain(_pick(generator, _REMARKS))
    tokens = _filled(_pick(generator, templates), slots)
    first = tokens[0]
    return [first._replace(word=first.word[0].upper() + first.word[1:]), *tokens[1:]]


def _question(generator: random.Random, plan: Plan) -> list[_Token]:
    templates = next(texts for roles, texts in _QUESTIONS[plan.asked] if roles == plan.constraints)
    slots = _slots(plan.target, _RELATIONS[plan.target.relation][0][0])
    slots["object"] = [token for token in slots["object"] if token.tag != "amount"]
    for role in plan.constraints:
        # The preposition singles out too, as in "in 1904"; the article does not.
        slots[role] = [
            token if token.word == "the" else token._replace(tag="constraint") for token in slots[role]
        ]
    return [
        # "town" is a content word elsewhere; "In" of a constraint is no question word.
        token._replace(tag="question")
        if token.tag in ("function", "content") and token.word in _QUESTION_WORDS
        else token
        for token in _filled(_pick(generator, templates), slots)
    ]


def _slots(fact: Fact, forms: str) -> dict[str, Sequence[_Token]]:
    """Choose the words for each slot of a template; prepositions and articles belong to the slot."""
    base, past, participle = (_tagged(form, "verb") for form in forms.split())
    person, thing = _tagged(fact.person, "person"), _tagged(fact.object, "object")
    opening = (
        _Token(fact.amount, "amount", fact.amount) if fact.amount else _Token("the", "function", fact.object)
    )
    return {
        "base": base,
        "past": past,
        "participle": participle,
        "was": _plain("were" if fact.amount else "was"),
        "person": person,
        "agent": person,
        "object": [opening, *thing],
        "place": _plain("in") + _tagged(fact.place, "place"),
        "year": _plain("in") + _tagged(fact.year, "year"),
    }


def _filled(template: str, slots: dict[str, Sequence[_Token]]) -> list[_Token]:
    tokens: list[_Token] = []
    for word in template.split():
        tokens += slots[word[1:-1]] if word[0] == "{" else _plain(word)
    return tokens


@cache
def _plain(text: str) -> tuple[_Token, ...]:
    tagged = ((word, "content" if word.lower() in _CONTENT else "function") for word in text.split())
    return tuple(_Token(word, tag) for word, tag in tagged)


@cache
def _tagged(value: str, tag: str) -> tuple[_Token, ...]:
    return tuple(_Token(word, tag, value) for word in value.split())


def _pick(generator: random.Random, items: Sequence[_T]) -> _T:
    """As `choice`, in a third of its time."""
    return items[int(len(items) * generator.random())]
