"""Dialogues about a plan: a narrative states it, the turns ask for it, answer, promise and thank.

    seven players are expected on Friday at the tower for a game by Clara , and Oscar will help with the
    parking . Clara told Paul that she is happy because the weather will be fine . if the lights go out ,
    she will borrow the car of Rolf .
    Paul:  hi Clara , how many players do you expect ?
    Clara: hi Paul , I expect seven players for the game . could you please bring something ?
    Paul:  of course , I can bring five books . but what if the lights go out , Clara ?
    Clara: five books , thank you so much . hmm , I will borrow the car of Rolf . see you on Friday , all the
           best , Paul , bye .

    Sofia and Georg have talked for weeks about a show on Friday at the library , with five paintings . [...]
    Georg: hi Sofia , which day is the show ?
    Sofia: hi Georg , well , the show is on Friday . [...]

Whoever asks knows nothing; the answers follow from the narrative or from an earlier turn: a promise
("I can bring four cakes") comes back with its number, a wrong guess is set right, and sympathy fits
the feeling. Markers ("well", "you know", "thanks") depend on what a turn does. Turns name the listener or
the event: were they few, they would be learned by heart, and no turn of one split stands in another.
"""

import random
from typing import NamedTuple

from repro.data.corpora.shared.splits import is_own
from repro.data.corpora.shared.words import (
    COUNTS,
    DAYS,
    LEXICON,
    MEN,
    WOMEN,
    Words,
    listed,
    mark,
    people,
    roles_of,
    tagged,
    text_of,
)
from repro.tasks.base import Row

CATEGORIES = (
    "marker",
    "condition",
    "question",
    "answer",
    "entity",
    "pronoun",
    "number",
    "verb",
    "content",
    "function",
)

TURNS = (4, 7)
"""Fewest and most turns."""
WORDS = (60, 150)
"""Fewest and most words of narrative and turns together."""
FILLERS = 0.6
"""How often a turn opens with a marker that its content does not call for."""
PROMISES = 0.6
"""How often a dialogue that is long enough has a request and a promise, which is echoed later."""
GUESSES = 0.4
"""How often Y guesses day or place instead of asking for it."""
WRONG_GUESSES = 0.5
"""How often a guess ("it is on Monday , right ?") is wrong."""
DRAWS = 100
"""How often a turn is drawn again that belongs to another split, before the whole dialogue is."""

PLACES = listed(
    """
    park library station harbour school museum market church garden hotel theatre beach farm castle
    airport bakery cinema stadium office forest lake mill square tower zoo club gym cafe
    """
)
EVENTS = (
    ("party", "guests"),
    ("dinner", "guests"),
    ("picnic", "children"),
    ("concert", "songs"),
    ("wedding", "guests"),
    ("meeting", "neighbours"),
    ("lesson", "students"),
    ("game", "players"),
    ("show", "paintings"),
    ("sale", "bicycles"),
    ("race", "runners"),
    ("trip", "friends"),
    ("contest", "dogs"),
    ("play", "actors"),
)
GIFTS = listed(
    """
    cakes chairs lamps bottles sandwiches tickets blankets candles plates flags apples books cups drums
    eggs forks glasses hats jackets keys maps oranges pens potatoes ropes spoons tents towels umbrellas
    whistles
    """
)
GLAD = listed("happy proud excited glad hopeful calm cheerful thrilled relaxed grateful")
GLOOMY = listed("nervous worried sad anxious afraid tired upset lonely angry stressed")
GLAD_REASONS = (
    "everything is ready",
    "{Z} will be there",
    "all friends have promised* to come*",
    "the first one went* so well",
    "the papers wrote* about it",
    "the weather will be fine",
    "{Z} sent* such a kind letter",
    "the whole town talks* about it",
)
GLOOMY_REASONS = (
    "nothing is ready",
    "{Z} is ill",
    "there is not enough money",
    "the last one went* so badly",
    "nobody has answered* yet",
    "{Z} has broken* a leg",
    "the neighbours complain* about the noise",
    "there are only a few days left",
)
CONDITIONS = (
    "it rains*",
    "it is too cold",
    "{Z} falls* ill",
    "{Z} says* no",
    "the bus is late",
    "the money is gone",
    "nobody comes*",
    "the {place} is closed*",
    "the lights go* out",
    "the storm comes*",
    "{Z} forgets* the date",
    "the prices go* up",
    "the police come*",
    "the food runs* out",
)
REMEDIES = (
    "move* it to the {place2}",
    "wait* until {day2}",
    "ask* {W} for help",
    "stay* at home",
    "borrow* the car of {W}",
    "sing* a song",
    "call* it off",
    "try* again on {day2}",
    "ask* {W} for advice",
    "borrow* the van of {W}",
    "wait* for {W}",
    "call* {W}",
    "try* the {place2}",
    "stay* with {W}",
)
TASKS = listed("music food tables lights posters drinks decoration parking cooking photos chairs flowers")
NUMBERS = [*COUNTS[2:], "twenty", "thirty", "forty", "fifty"]

_PLANS = (
    "{X} plans* a {event} with {n} {things} at the {place} on {day}",
    "on {day} {X} will hold* a {event} with {n} {things} at the {place}",
    "{X} and {Y} have talked* for weeks about a {event} on {day} at the {place} , with {n} {things}",
    "{n} {things} are expected* on {day} at the {place} for a {event} by {X}",
)
_HELPERS = (" , and {H} will help* with the {task} .", " . {H} takes* care of the {task} .")
_FEELINGS = ("{he} is {feeling} because {reason} .", "because {reason} , {he} feels* {feeling} .")
_ASSUMPTIONS = (
    "{condition} , {he} will {remedy} .",
    "{he} will {remedy} {condition} .",
    "{he} has decided* to {remedy} {condition} .",
)


class _Exchange(NamedTuple):
    """Ways to ask and to answer; markers that fit the answer.

    `...` stands for the fact, `{you}` for the listener's name where the turn does not name them anyway.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    fact: str
    fillers: tuple[str, ...] = ("well ,", "oh ,", "let me see ,")


_EXCHANGES = {
    "where": _Exchange(
        (
            "where is the {event}{you} ?",
            "where will you hold* the {event}{you} ?",
            "tell* me{you} , where do we meet* for the {event} ?",
        ),
        (
            "the {event} is ...{you} .",
            "it is ...{you} .",
            "we meet* ... for the {event}{you} .",
            "you will find* us ...{you} .",
        ),
        "at the {place}",
    ),
    "when": _Exchange(
        (
            "when is it{you} , the {event} ?",
            "which day is the {event}{you} ?",
            "which day did you choose* for the {event}{you} ?",
        ),
        (
            "it is ...{you} .",
            "the {event} is ...{you} .",
            "we start* the {event} ...{you} .",
            "we hold* the {event} ...{you} .",
        ),
        "on {day}",
    ),
    "many": _Exchange(
        (
            "how many {things} will there be{you} ?",
            "how many {things} do you expect*{you} ?",
            "for how many {things} is the {event}{you} ?",
        ),
        (
            "there will be ...{you} .",
            "I expect* ... for the {event}{you} .",
            "we count* on ...{you} .",
            "... , so far{you} .",
        ),
        "{n} {things}",
        ("I guess", "um ,", "let me see ,"),
    ),
    "who": _Exchange(
        (
            "who takes* care of the {task}{you} ?",
            "who helps* you with the {task}{you} ?",
            "tell* me{you} , who helps* with the {task} ?",
        ),
        ("that is ...{you} .", "I can count* on ... for the {task}{you} .", "I rely* on ... for that{you} ."),
        "{H}",
    ),
    "feeling": _Exchange(
        (
            "how do you feel* about the {event}{you} ?",
            "what is your feeling about the {event}{you} ?",
            "and how do you feel* today{you} ?",
        ),
        ("I am ... about the {event}{you} .", "I feel* ...{you} .", "I am ... these days{you} ."),
        "{feeling}",
        ("to be honest ,", "hmm ,", "you know ,"),
    ),
    "why": _Exchange(
        (
            "why are you {feeling}{you} ?",
            "you are {feeling} , why{you} ?",
            "you seem* {feeling}{you} , why is that ?",
        ),
        ("...{you} .", "that is ...{you} .", "simply ...{you} ."),
        "because {reason}",
        ("you see ,", "hmm ,", "I mean ,"),
    ),
    "what if": _Exchange(
        ("what {condition}{you} ?", "what will you do {condition}{you} ?", "but what {condition}{you} ?"),
        ("in that case I will ...{you} .", "then I will ...{you} .", "I will ...{you} ."),
        "{remedy}",
        ("well ,", "hmm ,", "good question ,"),
    ),
}
_GUESSED = {"when": "day", "where": "place"}
_GUESSES = {
    "when": ("it is on {guess_day}{you} , right ?", "so the {event} is on {guess_day}{you} ?"),
    "where": ("it is at the {guess_place}{you} , right ?", "so the {event} is at the {guess_place}{you} ?"),
}
_YES = (
    "yes/answer ,",
    "yes/answer , exactly/marker ,",
    "yes/answer , definitely/marker ,",
    "yes/answer , indeed/marker ,",
    "yes/answer , it is",
)
_NO = (
    "no/answer , sorry/marker , it is",
    "no/answer , actually/marker it is",
    "no/answer , I/marker mean/marker",
    "no/answer , it is",
    "no/answer , I/marker guess/marker it is",
)

_GREETINGS = ("hi", "hello", "hey", "good morning", "good evening")
_ADDRESSES = ("", "dear ", "my dear ")
_FAREWELLS = ("", "take care , ", "all the best , ", "have a good day , ")
_PROMISES = ("of course ,", "with pleasure ,", "sure ,")
_ACKNOWLEDGEMENTS = ("I see .", "okay .", "all right .", "thanks .", "good to know .")
_DELIGHT = ("wow , that is great !", "oh , how nice !")
_PITY = ("oh no , I am so sorry .", "oh dear , poor you .")
_LEXICON = (
    LEXICON
    | dict.fromkeys(NUMBERS, "number")
    | dict.fromkeys([*MEN, *WOMEN, *DAYS], "entity")
    | dict.fromkeys(listed("? where when which how many who what why right"), "question")
)


def generate(size: int, seed: int) -> list[Row]:
    """Generate dialogues in SODA's schema, `narrative`, `dialogue`, `speakers`, with `categories`.

    `categories` has the roles of the narrative and of each turn. The same seed gives the same rows.
    About 3,000 rows a second.
    """
    generator = random.Random(f"dialogues:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        facts = _facts(generator)
        told = generator.random() < 0.3
        narrative = tagged(_narrative(generator, facts, told), _LEXICON)
        speakers, turns = _turns(generator, facts, told, seed)
        if not WORDS[0] <= len(narrative) + sum(map(len, turns)) <= WORDS[1] or [] in turns:
            continue
        rows.append(
            {
                "narrative": text_of(narrative),
                "dialogue": [text_of(turn) for turn in turns],
                "speakers": speakers,
                "categories": {
                    "narrative": roles_of(narrative),
                    "dialogue": [roles_of(turn) for turn in turns],
                },
            }
        )
    return rows


def _facts(generator: random.Random) -> dict[str, str]:
    """Fillers of the slots: all that the narrative says, and the guesses and promises of the turns."""
    person = people(generator, 1)[0]
    # Of the other gender, so that a pronoun of the narrative means X.
    others = people(generator, 4, female=not person.female)
    event, things = generator.choice(EVENTS)
    glad = generator.random() < 0.5
    day, day2, day3 = generator.sample(DAYS, 3)
    place, place2, place3 = generator.sample(PLACES, 3)
    n, promised = generator.sample(NUMBERS[:10], 2)
    wrong = generator.random() < WRONG_GUESSES
    facts = {name: other.name for name, other in zip("YHZW", others, strict=True)}
    facts |= {
        "X": person.name,
        "he": person.he,
        "event": event,
        "things": things,
        "n": n if generator.random() < 0.7 else generator.choice(NUMBERS[10:]),
        "task": generator.choice(TASKS),
        "day": day,
        "day2": day2,
        "place": place,
        "place2": place2,
        "guess_day": day3 if wrong else day,
        "guess_place": place3 if wrong else place,
        "mood": "glad" if glad else "gloomy",
        "feeling": generator.choice(GLAD if glad else GLOOMY),
        "promise": f"{promised} {generator.choice(GIFTS)}",
    }
    facts["reason"] = generator.choice(GLAD_REASONS if glad else GLOOMY_REASONS).format_map(facts)
    facts["remedy"] = generator.choice(REMEDIES).format_map(facts)
    condition = "if " + generator.choice(CONDITIONS).format_map(facts)
    return facts | {"condition": mark(condition, "condition")}


def _narrative(generator: random.Random, facts: dict[str, str], told: bool) -> str:
    feeling = generator.choice(_FEELINGS).format_map(facts)
    if told:
        # What somebody said is an assumption that the dialogue builds on, like "if it rains".
        feeling = f"{facts['X']} told* {facts['Y']} that {mark(feeling[:-2], 'condition')} ."
    plan = generator.choice(_PLANS) + generator.choice(_HELPERS)
    return f"{plan.format_map(facts)} {feeling} {generator.choice(_ASSUMPTIONS).format_map(facts)}"


def _topics(generator: random.Random, told: bool) -> list[str]:
    """List what is asked, in order; the reason of a feeling only once the feeling is known."""
    topics = ["where", "when", "many", "who", "what if", "why" if told else "feeling"]
    generator.shuffle(topics)
    if not told:
        topics.insert(topics.index("feeling") + 1, "why")
    return topics


class _Moment(NamedTuple):
    """What is settled of a turn before its words are drawn."""

    role: str
    listener: str
    before: str
    """What was asked last: what X answers now, and what Y reacts to."""
    topic: str
    """What Y asks now; nothing in the last turn."""
    guessed: bool
    """Whether the question is a guess."""
    step: int
    """0: X requests something. 1: Y promises it. 2: X echoes that."""
    opens: bool
    closes: bool


def _turns(
    generator: random.Random, facts: dict[str, str], told: bool, seed: int
) -> tuple[list[str], list[Words]]:
    """Make the speakers and the turns: Y asks, X answers; either may begin. An empty turn found no words."""
    count = generator.randint(*TURNS)
    first = generator.choice("XXYYY")
    roles = [first if turn % 2 == 0 else {"X": "Y", "Y": "X"}[first] for turn in range(count)]
    # X may request something; Y promises it in the next turn, X echoes that in the one after.
    requests = [turn for turn in range(1, count - 2) if roles[turn] == "X"]
    request = generator.choice(requests) if requests and generator.random() < PROMISES else count
    topics = iter(_topics(generator, told))
    asked, guessed = "" if first == "Y" else "minute", False
    turns = []
    for turn, role in enumerate(roles):
        before, closes = asked, turn == count - 1
        if role == "Y":
            asked = "" if closes else next(topics)
            guessed = asked in _GUESSED and generator.random() < GUESSES
        listener = facts["Y" if role == "X" else "X"]
        moment = _Moment(role, listener, before, asked, guessed, turn - request, turn < 2, closes)
        draws = (_said(generator, moment, facts) for _ in range(DRAWS))
        # The first turn is only read, and there are few of them.
        turns.append(next((words for words in draws if turn == 0 or is_own(text_of(words), seed)), []))
    return [facts[role] for role in roles], turns


def _said(generator: random.Random, moment: _Moment, facts: dict[str, str]) -> Words:
    """Draw the words of a turn."""
    named = moment.opens or moment.closes  # in the greeting, or in the farewell
    facts = facts | {"you": "" if named else f" , {generator.choice(_ADDRESSES)}{moment.listener}"}
    parts = []
    if moment.opens:
        parts.append(f"{mark(generator.choice(_GREETINGS), 'marker')} {moment.listener} ,")
    if moment.role == "Y":
        promised = moment.step == 1
        parts.append(_promise(generator, facts) if promised else _reaction(generator, moment.before, facts))
        if moment.topic:
            parts.append(_question(generator, moment, facts))
    else:
        if moment.step == 2:
            parts.append(f"{mark(facts['promise'], 'answer')} , {mark('thank you so much .', 'marker')}")
        parts.append(_answer(generator, moment, facts))
        if moment.step == 0:
            parts.append(f"could you {mark('please', 'marker')} bring* something ?")
    if moment.closes:
        parts.append(_farewell(generator, moment, facts))
    return tagged(" ".join(parts), _LEXICON)


def _question(generator: random.Random, moment: _Moment, facts: dict[str, str]) -> str:
    ways = _GUESSES[moment.topic] if moment.guessed else _EXCHANGES[moment.topic].questions
    return generator.choice(ways).format_map(facts)


def _answer(generator: random.Random, moment: _Moment, facts: dict[str, str]) -> str:
    """Make the answer to what was asked, or guessed, as marked text."""
    topic = moment.before
    if topic == "minute":
        return "do you have* a minute ?"
    exchange = _EXCHANGES[topic]
    fact = mark(exchange.fact.format_map(facts), "answer")
    if moment.guessed:
        right = facts[_GUESSED[topic]] == facts["guess_" + _GUESSED[topic]]
        return f"{generator.choice(_YES if right else _NO)} {fact}{facts['you']} ."
    answer = generator.choice(exchange.answers).format_map(facts).replace("...", fact)
    if generator.random() < FILLERS:
        answer = f"{mark(generator.choice(exchange.fillers), 'marker')} {answer}"
    return answer


def _promise(generator: random.Random, facts: dict[str, str]) -> str:
    return f"{mark(generator.choice(_PROMISES), 'marker')} I can bring* {facts['promise']} ."


def _reaction(generator: random.Random, topic: str, facts: dict[str, str]) -> str:
    """Make what a listener says to the last answer; nothing in the first turn."""
    if topic == "minute":
        return mark("of course .", "marker")
    if topic in ("feeling", "why"):
        return mark(generator.choice(_DELIGHT if facts["mood"] == "glad" else _PITY), "marker")
    if topic and generator.random() < FILLERS:
        return mark(generator.choice(_ACKNOWLEDGEMENTS), "marker")
    return ""


def _farewell(generator: random.Random, moment: _Moment, facts: dict[str, str]) -> str:
    wish = mark(generator.choice(_FAREWELLS), "marker")
    farewell = f"{wish} {moment.listener} , {mark('bye', 'marker')} ."
    if generator.random() < 0.5:
        return f"see* you {mark('on ' + facts['day'], 'answer')} , {farewell}"
    return farewell
