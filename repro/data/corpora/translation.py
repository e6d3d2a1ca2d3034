"""Toy German to English: verb-second and verb-final clauses, cases, genders, separable verbs, nesting.

    Jonas hat immer die kluge Köchin geliebt .
    -> Jonas always loved the clever cook .
    Wenn die Frau morgen den Mäusen dankt , schaut ein fremder Bruder dich nie an .
    -> If the woman thanks the mice tomorrow , a strange brother never watches you .
    Ein kleiner Gast , den sie auslachen , malt den Esel nicht .
    -> A small guest who they mock does not paint the donkey .

A clause is chosen once, as slots (subject, objects, adverbials, verb and tense), and written in the order
of each language. Each word has one translation in its construction, and case, agreement and word
order leave one reading, so the English is a function of the German. Nouns, verbs and adjectives
follow a Zipf law, so that part of the lexicon is seen only a few times.
"""

import random
from typing import NamedTuple, TypeVar

from repro.data.corpora.shared.splits import is_own
from repro.data.corpora.shared.words import zipf
from repro.tasks.base import Row

CATEGORIES = (
    "noun",
    "verb",  # full verbs and the copula; a separable verb that is one word
    "auxiliary",  # of perfect and future, modals, and the English "do"
    "particle",  # a separated prefix ("ruft ... an"), "zu" and "to" before an infinitive
    "adjective",
    "adverb",
    "determiner",
    "pronoun",
    "relative",  # relative pronouns
    "conjunction",  # subordinating
    "coordination",
    "preposition",
    "negation",  # nicht, kein, nie; not, no, never
    "number",
    "name",
    "punctuation",
)

# Difficulty: how long and how nested the sentences are. Shares of all cases where each could be.
MIN_WORDS, MAX_WORDS = 4, 25  # of the German sentence, with punctuation
MAX_DEPTH = 2  # of clauses inside clauses
SUBORDINATE = 0.22  # sentences with an adverbial clause, before or after the main clause
COORDINATE = 0.1  # sentences of two main clauses
RELATIVE = 0.12  # noun phrases with a relative clause; half of that at each further depth
FRONTED = 0.4  # main clauses that begin with an adverbial or object, if they have one
PAST = 0.4  # sentences in the perfect
MODAL = 0.4  # other clauses in the future or with a modal
NEGATED = 0.15  # clauses
ADJECTIVE = 0.35  # noun phrases
PLURAL = 0.25  # noun phrases
ADVERBIAL = 0.22  # clauses, for each kind: time, frequency, manner, place or companion

_Word = tuple[str, str]
_Words = list[_Word]
_T = TypeVar("_T")


class _Noun(NamedTuple):
    gender: str
    german: tuple[str, str]  # singular, plural
    english: tuple[str, str]


class _Verb(NamedTuple):
    prefix: str
    infinitive: str
    third: str
    participle: str
    perfect: str
    english: str
    past: str


class _Phrase(NamedTuple):
    de: _Words
    en: _Words
    clauses: int = 0  # finite clauses inside


class _Nominal(NamedTuple):
    phrase: _Phrase
    person: int  # 0 to 4: I, you, he or she, we, they
    marked: bool = False  # masculine singular: its case shows


class _VerbForms(NamedTuple):
    finite: _Word
    bracket: _Words  # what ends a main clause
    final: _Words  # what ends a subordinate clause
    support: _Words  # English auxiliary, or copula
    main: _Words


class _Clause(NamedTuple):
    subject: _Nominal
    verb: _VerbForms
    slots: dict[str, _Phrase]
    movable: list[str]  # slots that German can put first


class _Scope(NamedTuple):
    """Where in the sentence something is generated."""

    random: random.Random
    depth: int
    past: bool

    def deeper(self) -> "_Scope":
        return self._replace(depth=self.depth + 1)

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability


def _pairs(text: str) -> list[tuple[str, str]]:
    rows = (row.split() for row in text.split(","))
    return [(german, english) for german, english in rows]


# German singular and plural, English singular and plural; the most frequent first.
_NOUNS_TEXT = {
    "person": """
    der Mann Männer man men, die Frau Frauen woman women, das Kind Kinder child children,
    der Freund Freunde friend friends, das Mädchen Mädchen girl girls, der Lehrer Lehrer teacher teachers,
    die Mutter Mütter mother mothers, der Vater Väter father fathers, die Ärztin Ärztinnen doctor doctors,
    die Schwester Schwestern sister sisters, der Bruder Brüder brother brothers, der Sohn Söhne son sons,
    die Tochter Töchter daughter daughters, der König Könige king kings, der Onkel Onkel uncle uncles,
    die Tante Tanten aunt aunts, der Bäcker Bäcker baker bakers, die Köchin Köchinnen cook cooks,
    der Dieb Diebe thief thieves, der Gast Gäste guest guests, die Richterin Richterinnen judge judges
    """,
    "animal": """
    der Hund Hunde dog dogs, die Katze Katzen cat cats, das Pferd Pferde horse horses,
    der Vogel Vögel bird birds, die Kuh Kühe cow cows, die Maus Mäuse mouse mice,
    der Fuchs Füchse fox foxes, das Schwein Schweine pig pigs, der Esel Esel donkey donkeys
    """,
    "thing": """
    das Buch Bücher book books, der Ball Bälle ball balls, die Tasche Taschen bag bags,
    der Brief Briefe letter letters, das Bild Bilder picture pictures, der Stuhl Stühle chair chairs,
    die Lampe Lampen lamp lamps, der Tisch Tische table tables, die Uhr Uhren clock clocks,
    der Schlüssel Schlüssel key keys, das Boot Boote boat boats, der Hut Hüte hat hats,
    die Karte Karten map maps, der Mantel Mäntel coat coats, das Fahrrad Fahrräder bicycle bicycles,
    die Flasche Flaschen bottle bottles, das Messer Messer knife knives, der Teller Teller plate plates,
    das Kleid Kleider dress dresses, der Korb Körbe basket baskets, die Blume Blumen flower flowers,
    der Apfel Äpfel apple apples, der Schirm Schirme umbrella umbrellas, die Geige Geigen violin violins,
    der Ring Ringe ring rings, die Münze Münzen coin coins
    """,
    "place": """
    das Haus Häuser house houses, der Garten Gärten garden gardens, die Stadt Städte city cities,
    die Schule Schulen school schools, der Wald Wälder forest forests, das Zimmer Zimmer room rooms,
    die Küche Küchen kitchen kitchens, der Park Parks park parks, das Dorf Dörfer village villages,
    die Kirche Kirchen church churches, der Bahnhof Bahnhöfe station stations,
    das Museum Museen museum museums, die Brücke Brücken bridge bridges, der Turm Türme tower towers,
    das Schloss Schlösser castle castles
    """,
}
# Prefix|infinitive, third person, participle ("+": perfect with sein), English, its past.
_VERBS_TEXT = {
    "intransitive": """
    schlafen schläft geschlafen sleep slept, warten wartet gewartet wait waited,
    an|kommen kommt +gekommen arrive arrived, lachen lacht gelacht laugh laughed,
    arbeiten arbeitet gearbeitet work worked, zurück|kommen kommt +gekommen return returned,
    tanzen tanzt getanzt dance danced, auf|wachen wacht +gewacht wake woke,
    laufen läuft +gelaufen run ran, singen singt gesungen sing sang,
    weg|laufen läuft +gelaufen flee fled, weinen weint geweint cry cried
    """,
    "any": """
    sehen sieht gesehen see saw, suchen sucht gesucht seek sought, an|schauen schaut geschaut watch watched,
    finden findet gefunden find found, hören hört gehört hear heard, lieben liebt geliebt love loved,
    malen malt gemalt paint painted, vergessen vergisst vergessen forget forgot,
    brauchen braucht gebraucht need needed, retten rettet gerettet save saved,
    berühren berührt berührt touch touched
    """,
    "thing": """
    kaufen kauft gekauft buy bought, mit|bringen bringt gebracht bring brought,
    tragen trägt getragen carry carried, verkaufen verkauft verkauft sell sold,
    auf|heben hebt gehoben lift lifted, verlieren verliert verloren lose lost,
    waschen wäscht gewaschen wash washed, weg|werfen wirft geworfen discard discarded,
    reparieren repariert repariert repair repaired, stehlen stiehlt gestohlen steal stole,
    aus|leihen leiht geliehen borrow borrowed, ein|packen packt gepackt pack packed
    """,
    "person": """
    an|rufen ruft gerufen call called, besuchen besucht besucht visit visited,
    begrüßen begrüßt begrüßt greet greeted, ab|holen holt geholt fetch fetched,
    umarmen umarmt umarmt hug hugged, aus|lachen lacht gelacht mock mocked
    """,
    "dative": """
    helfen hilft geholfen help helped, folgen folgt +gefolgt follow followed,
    danken dankt gedankt thank thanked, vertrauen vertraut vertraut trust trusted
    """,
    "give": """
    geben gibt gegeben give gave, zeigen zeigt gezeigt show showed, schicken schickt geschickt send sent,
    leihen leiht geliehen lend lent
    """,
    "say": """
    sagen sagt gesagt say said, glauben glaubt geglaubt believe believed, denken denkt gedacht think thought,
    hoffen hofft gehofft hope hoped, träumen träumt geträumt dream dreamed
    """,
    "try": """
    versuchen versucht versucht try tried, beschließen beschließt beschlossen decide decided,
    an|fangen fängt gefangen begin began, versprechen verspricht versprochen promise promised
    """,
}
_ADJECTIVES = {
    "any": _pairs(
        """
        alt old, klein small, groß big, schön beautiful, gut good, schwarz black, weiß white,
        schlecht bad, fremd strange, berühmt famous
        """
    ),
    "animate": _pairs(
        """
        jung young, arm poor, stark strong, klug clever, reich rich, traurig sad,
        freundlich friendly, schwach weak, ruhig calm, fröhlich cheerful
        """
    ),
    "thing": _pairs(
        """
        neu new, rot red, blau blue, schwer heavy, grün green, kalt cold, lang long, warm warm,
        kurz short, leicht light
        """
    ),
}
_NAMES = ["Anna", "Peter", "Lena", "Paul", "Maria", "Jonas", "Clara", "Felix", "Emma", "Oskar", "Ida", "Hugo"]
_NUMBERS = _pairs("zwei two, drei three, vier four, fünf five, sechs six, sieben seven, acht eight, zehn ten")
_TIMES = {  # of the past, or not
    True: _pairs("gestern yesterday, damals then, heute today"),
    False: _pairs("heute today, jetzt now, morgen tomorrow"),
}
_FREQUENCIES = _pairs("oft often, immer always, selten rarely, nie never")
_MANNERS = _pairs("schnell quickly, langsam slowly, leise quietly, gern gladly")
_CONJUNCTIONS = _pairs("weil because, wenn if, obwohl although, bevor before, während while")
_PREPOSITIONS = {  # German: case of its noun, kind of its noun, English
    "in": ("dative", "place", "in"),
    "vor": ("dative", "place", "in front of"),
    "hinter": ("dative", "place", "behind"),
    "neben": ("dative", "place", "next to"),
    "mit": ("dative", "person", "with"),
    "ohne": ("accusative", "person", "without"),
    "für": ("accusative", "person", "for"),
}
_DETERMINERS = {  # German stem: English singular, plural
    "der": ("the", "the"),
    "ein": ("a", ""),
    "dies": ("this", "these"),
    "jed": ("every", ""),
    "mein": ("my", "my"),
    "dein": ("your", "your"),
    "sein": ("his", "his"),
    "ihr": ("her", "her"),
    "unser": ("our", "our"),
    "kein": ("no", "no"),
    "number": ("", ""),
}
_ANY = {"der": 8.0, "ein": 4.0, "dies": 1.5, "jed": 0.7, "mein": 1.0, "dein": 0.7, "sein": 0.7}
_ANY |= {"ihr": 0.7, "unser": 0.7, "number": 1.5}
_DEFINITE = {"der": 8.0, "dies": 1.5, "mein": 1.0, "sein": 0.7, "ihr": 0.7}  # together with "nicht"
_PRONOUNS = _pairs("ich I, du you, er he, sie she, wir we, sie they")
_PERSONS = (0, 1, 2, 2, 3, 4)
_OBJECT_PRONOUNS = _pairs("mich me, dich you, ihn him, uns us")  # "sie" would be ambiguous

# Columns: masculine, feminine, neuter, plural.
_THE = {"nominative": "der die das die", "accusative": "den die das die", "dative": "dem der dem den"}
_DIES = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en"}
_EIN = {"nominative": "- e - e", "accusative": "en e - e", "dative": "em er em en"}
_WEAK = {"nominative": "e e e en", "accusative": "en e e en", "dative": "en en en en"}
_MIXED = {"nominative": "er e es en", "accusative": "en e es en", "dative": "en en en en"}

# The five persons of the German auxiliaries and copula, and of the English copula.
_FINITE = {
    "will": "werde wirst wird werden werden",
    "can": "kann kannst kann können können",
    "must": "muss musst muss müssen müssen",
    "should": "soll sollst soll sollen sollen",
    "haben": "habe hast hat haben haben",
    "sein": "bin bist ist sind sind",
    "is": "bin bist ist sind sind",
    "was": "war warst war waren waren",
}
_BE = {"is": "am are is are are", "was": "was were was were were"}
# Weights of what a verb takes: an object of a kind, a recipient, an adjective, a clause, an infinitive.
_FRAMES = {"intransitive": 3.0, "any": 4.0, "thing": 4.0, "person": 1.5, "dative": 1.0, "give": 1.5}
_FRAMES |= {"copula": 2.0, "say": 1.5, "try": 1.2}
_GERMAN_MIDDLE = ("pronoun", "time", "frequency", "dative", "object", "not", "manner", "place")
_ENGLISH_END = ("pronoun", "object", "dative", "manner", "place", "time")
_GENDERS = {"der": "m", "die": "f", "das": "n"}
_COMMA = _Phrase([(",", "punctuation")], [(",", "punctuation")])


def _nouns(kind: str) -> list[_Noun]:
    rows = [row.split() for row in _NOUNS_TEXT[kind].split(",")]
    return [_Noun(_GENDERS[r[0]], (r[1], r[2]), (r[3], r[4])) for r in rows]


def _verb_rows(frame: str) -> list[_Verb]:
    rows = [row.split() for row in _VERBS_TEXT[frame].split(",")]
    verbs = []
    for infinitive, third, participle, english, past in rows:
        prefix, _, stem = infinitive.rpartition("|")
        perfect = "sein" if participle[0] == "+" else "haben"
        verbs.append(_Verb(prefix, stem, third, participle.lstrip("+"), perfect, english, past))
    return verbs


_NOUNS = {kind: _nouns(kind) for kind in _NOUNS_TEXT}
_VERBS = {frame: _verb_rows(frame) for frame in _VERBS_TEXT}


def generate(size: int, seed: int) -> list[Row]:
    """Generate pairs in WMT19's schema, `translation` with `de` and `en`, with `categories` and `clauses`.

    `categories` has the roles of the words of `de` and of `en`; `clauses` is the number of finite
    clauses. The same seed gives the same rows. Thousands of rows a second.
    """
    generator = random.Random(f"translation:{seed}")
    rows: list[Row] = []
    while len(rows) < size:
        sentence = _sentence(generator)
        german, english = _finished(sentence.de), _finished(sentence.en)
        target = " ".join(word for word, _ in english)
        if not MIN_WORDS <= len(german) <= MAX_WORDS or not is_own(target, seed):
            continue
        rows.append(
            {
                "translation": {"de": " ".join(word for word, _ in german), "en": target},
                "categories": {
                    "de": [category for _, category in german],
                    "en": [category for _, category in english],
                },
                "clauses": sentence.clauses,
            }
        )
    return rows


def _finished(words: _Words) -> _Words:
    """With a full stop and a capital, one comma where clauses end together, and "an" before vowels."""
    ended = [*words, (".", "punctuation")]
    kept: _Words = []
    for word, following in zip(ended, [*ended[1:], ended[-1]], strict=True):
        if word[0] == "," and following[0] in (",", "."):
            continue
        kept.append(("an", word[1]) if word[0] == "a" and following[0][0] in "aeiou" else word)
    first, category = kept[0]
    return [(first[0].upper() + first[1:], category), *kept[1:]]


def _sentence(generator: random.Random) -> _Phrase:
    scope = _Scope(generator, 0, generator.random() < PAST)
    main = _clause(scope)
    form = generator.random()
    if form < COORDINATE:
        word = _phrase(*generator.choice([("und", "and"), ("aber", "but")]), "coordination")
        return _joined(_main(scope, main), _COMMA, word, _main(scope, _clause(scope)))
    if form > COORDINATE + SUBORDINATE:
        return _main(scope, main)
    german, english = generator.choice(_CONJUNCTIONS)
    side = _final(_phrase(german, english, "conjunction"), _clause(scope.deeper()))
    if scope.happens(0.5):  # English has no comma before "because"
        return _joined(_main(scope, main), _Phrase(_COMMA.de, []), side)
    after = _verb_second(main, _joined(side, _COMMA).de)
    return _Phrase(after.de, side.en + _COMMA.en + after.en, side.clauses + after.clauses)


def _main(scope: _Scope, clause: _Clause) -> _Phrase:
    """Make a main clause that begins with its subject or with something fronted."""
    if not clause.movable or not scope.happens(FRONTED):
        return _verb_second(clause, [])
    slot = scope.random.choice(clause.movable)
    return _verb_second(clause, clause.slots[slot].de, slot)


def _verb_second(clause: _Clause, front: _Words, fronted: str = "") -> _Phrase:
    """Make the front, or else the subject, then the finite verb. `fronted`: the slot that is the front."""
    subject, finite = clause.subject.phrase, clause.verb.finite
    german = [*front, finite, *subject.de] if front else [*subject.de, finite]
    german += _middle(clause, fronted) + clause.verb.bracket
    # A fronted object follows the verb in English, as any object.
    opening = clause.slots[fronted].en if fronted in ("time", "place") else []
    english = opening + subject.en + _english(clause, fronted if opening else "")
    return _joined(_Phrase(german, english, _clauses(clause)), _tail(clause))


def _final(opening: _Phrase, clause: _Clause) -> _Phrase:
    """Verb last, after a conjunction or relative pronoun."""
    german = clause.subject.phrase.de + _middle(clause, "") + clause.verb.final
    english = clause.subject.phrase.en + _english(clause, "")
    return _joined(opening, _Phrase(german, english, _clauses(clause)), _tail(clause))


def _middle(clause: _Clause, moved: str) -> _Words:
    slots = [clause.slots[slot].de for slot in _GERMAN_MIDDLE if slot in clause.slots and slot != moved]
    return [word for words in slots for word in words]


def _english(clause: _Clause, moved: str) -> _Words:
    """All after the subject."""
    before = [clause.slots[slot].en for slot in ("not", "frequency") if slot in clause.slots]
    after = [clause.slots[slot].en for slot in _ENGLISH_END if slot in clause.slots and slot != moved]
    parts = [clause.verb.support, *before, clause.verb.main, *after]
    return [word for words in parts for word in words]


def _tail(clause: _Clause) -> _Phrase:
    return clause.slots.get("tail", _Phrase([], []))


def _clauses(clause: _Clause) -> int:
    """Finite clauses in it, but for its tail, which is joined to it."""
    inside = [phrase.clauses for slot, phrase in clause.slots.items() if slot != "tail"]
    return 1 + clause.subject.phrase.clauses + sum(inside)


def _clause(
    scope: _Scope, subject: _Nominal | None = None, frames: tuple[str, ...] = (), gap: bool = False
) -> _Clause:
    """Make a clause; the subject may be given, the object missing (`gap`) because a pronoun stands for it."""
    allowed = [frame for frame in frames or _FRAMES if scope.depth < MAX_DEPTH or frame not in ("say", "try")]
    frame = scope.random.choices(allowed, [_FRAMES[frame] for frame in allowed])[0]
    subject = subject or _subject(scope, frame)
    negated = scope.happens(NEGATED)
    slots, marked = ({}, False) if gap else _objects(scope, frame, negated)
    slots |= _adverbials(scope, frame, negated)
    if negated and not any(category == "negation" for part in slots.values() for _, category in part.de):
        slots["not"] = _phrase("nicht", "not", "negation")
    movable = [slot for slot in ("time", "place") if slot in slots] + ["object"] * marked
    verb = (
        _copula(scope, subject.person)
        if frame == "copula"
        else _verb(scope, zipf(scope.random, _VERBS[frame]), subject.person, "not" in slots)
    )
    if frame in ("say", "try"):
        slots["tail"] = _complement(scope.deeper()) if frame == "say" else _infinitive(scope.deeper())
    return _Clause(subject, verb, slots, movable)


def _complement(scope: _Scope) -> _Phrase:
    """Make a clause with "dass" behind "sagen"."""
    clause = _final(_phrase("dass", "that", "conjunction"), _clause(scope))
    return _joined(_Phrase(_COMMA.de, []), clause)


def _infinitive(scope: _Scope) -> _Phrase:
    """Make an infinitive with "zu" behind "versuchen"."""
    frame = scope.random.choice(["any", "thing", "person", "dative", "intransitive"])
    slots, _ = _objects(scope, frame, negated=False)
    verb = zipf(scope.random, _VERBS[frame])
    zu: _Words = [("zu", "particle"), (verb.infinitive, "verb")]
    if verb.prefix:
        zu = [(f"{verb.prefix}zu{verb.infinitive}", "verb")]
    objects = _joined(*slots.values())
    english: _Words = [("to", "particle"), (verb.english, "verb"), *objects.en]
    return _Phrase(_COMMA.de + objects.de + zu, english, objects.clauses)


def _copula(scope: _Scope, person: int) -> _VerbForms:
    tense = "was" if scope.past else "is"
    kind = scope.random.choice(list(_ADJECTIVES))
    predicate = _phrase(*zipf(scope.random, _ADJECTIVES[kind]), "adjective")
    if scope.happens(0.3):
        predicate = _joined(_phrase("sehr", "very", "adverb"), predicate)
    finite = (_FINITE[tense].split()[person], "verb")
    support = [(_BE[tense].split()[person], "verb")]
    return _VerbForms(finite, predicate.de, [*predicate.de, finite], support, predicate.en)


def _verb(scope: _Scope, verb: _Verb, person: int, negated: bool) -> _VerbForms:
    """Make the verb in the present, the perfect, the future or after a modal.

    English has the past for the perfect, and needs "do" to negate where it has no other auxiliary.
    """
    tense = verb.perfect
    if not scope.past:
        modals = ["will", "can", "should"] if negated else ["will", "can", "should", "must"]
        tense = scope.random.choice(modals) if scope.happens(MODAL) else "present"
    main = (verb.english, "verb")
    if tense == "present":
        word = _present(verb, person)
        prefix: _Words = [(verb.prefix, "particle")] if verb.prefix else []
        support = [("does" if person == 2 else "do", "auxiliary")] if negated else []
        if person == 2 and not negated:
            main = (_with_s(verb.english), "verb")
        return _VerbForms((word, "verb"), prefix, [(verb.prefix + word, "verb")], support, [main])
    finite = (_FINITE[tense].split()[person], "auxiliary")
    if scope.past:
        support = [("did", "auxiliary")] if negated else []
        main = main if negated else (verb.past, "verb")
        rest = [(verb.prefix + verb.participle, "verb")]
    else:
        support = [(tense, "auxiliary")]
        rest = [(verb.prefix + verb.infinitive, "verb")]
    return _VerbForms(finite, rest, [*rest, finite], support, [main])


def _present(verb: _Verb, person: int) -> str:
    if person > 2:
        return verb.infinitive
    if person == 0:
        return verb.infinitive.removesuffix("n")
    stem = verb.third.removesuffix("t")
    second = stem + ("t" if stem[-1] in "sßz" else "st")
    return second if person == 1 else verb.third


def _with_s(verb: str) -> str:
    if verb[-1] == "y" and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch")) else "s")


def _subject(scope: _Scope, frame: str) -> _Nominal:
    """Things and places only are something, animals do simple things, people do all."""
    form = scope.random.random()
    if form < 0.2:
        index = scope.random.randrange(len(_PRONOUNS))
        return _Nominal(_phrase(*_PRONOUNS[index], "pronoun"), _PERSONS[index])
    if form < 0.38:
        return _name(scope)
    if form < 0.42:
        one, other = scope.random.sample(_NAMES, 2)
        pair = _phrase(one, one, "name"), _phrase("und", "and", "coordination"), _phrase(other, other, "name")
        return _Nominal(_joined(*pair), 4)
    kinds = {"copula": ["person", "animal", "thing", "place"]}.get(frame, ["person"])
    if frame in ("intransitive", "any"):
        kinds = ["person", "person", "animal"]
    return _noun_phrase(scope, scope.random.choice(kinds), "nominative")


def _name(scope: _Scope) -> _Nominal:
    name = zipf(scope.random, _NAMES)
    return _Nominal(_phrase(name, name, "name"), 2)


def _objects(scope: _Scope, frame: str, negated: bool) -> tuple[dict[str, _Phrase], bool]:
    """Make the objects of a verb, and whether German can begin with the one in slot "object"."""
    if frame not in ("any", "thing", "person", "dative", "give"):
        return {}, False
    slots = {}
    if frame == "give":
        recipient = (
            _noun_phrase(scope, "person", "dative").phrase if scope.happens(0.7) else _name(scope).phrase
        )
        slots["dative"] = _Phrase(recipient.de, [("to", "preposition"), *recipient.en], recipient.clauses)
    form = scope.random.random()
    if frame in ("any", "person") and form < 0.15:
        return {"pronoun": _phrase(*scope.random.choice(_OBJECT_PRONOUNS), "pronoun")}, False
    if frame in ("any", "person", "dative") and form < 0.3:
        return {"object": _name(scope).phrase}, False
    kinds = {"any": ["person", "animal", "thing"], "give": ["thing"], "dative": ["person", "animal"]}
    kind = scope.random.choice(kinds.get(frame, [frame]))
    case = "dative" if frame == "dative" else "accusative"
    determiners = _ANY
    if negated:
        determiners = {"kein": 1.0} if scope.happens(0.4) else _DEFINITE
    nominal = _noun_phrase(scope, kind, case, determiners)
    return slots | {"object": nominal.phrase}, nominal.marked


def _adverbials(scope: _Scope, frame: str, negated: bool) -> dict[str, _Phrase]:
    slots = {}
    if scope.happens(ADVERBIAL):
        slots["time"] = _phrase(*scope.random.choice(_TIMES[scope.past]), "adverb")
    if scope.happens(ADVERBIAL):
        german, english = scope.random.choice(_FREQUENCIES[: 2 if negated else 4])
        slots["frequency"] = _phrase(german, english, "negation" if german == "nie" else "adverb")
    if frame in ("copula", "say", "try"):
        return slots
    if scope.happens(ADVERBIAL):
        slots["manner"] = _phrase(*scope.random.choice(_MANNERS), "adverb")
    if scope.happens(ADVERBIAL):
        slots["place"] = _prepositional(scope)
    return slots


def _prepositional(scope: _Scope) -> _Phrase:
    german, (case, kind, english) = scope.random.choice(list(_PREPOSITIONS.items()))
    noun = _noun_phrase(scope._replace(depth=MAX_DEPTH), kind, case).phrase  # no clause inside
    opening: _Words = [(german, "preposition")]
    following = noun.de
    if german == "in" and noun.de[0][0] == "dem":
        opening, following = [("im", "preposition")], noun.de[1:]
    return _Phrase(opening + following, [(word, "preposition") for word in english.split()] + noun.en)


def _noun_phrase(scope: _Scope, kind: str, case: str, determiners: dict[str, float] = _ANY) -> _Nominal:
    """Make determiner or number, perhaps an adjective, a noun, perhaps a relative clause."""
    noun = zipf(scope.random, _NOUNS[kind])
    stem = scope.random.choices(list(determiners), list(determiners.values()))[0]
    plural = stem == "number" or (stem not in ("ein", "jed") and scope.happens(PLURAL))
    column = 3 if plural else "mfn".index(noun.gender)
    parts = [_determiner(scope, stem, case, column)]
    if scope.happens(ADJECTIVE):
        kinds = ["any", "thing" if kind in ("thing", "place") else "animate"]
        german, english = zipf(scope.random, _ADJECTIVES[scope.random.choice(kinds)])
        endings = _WEAK if stem in ("der", "dies", "jed") else _DIES if stem == "number" else _MIXED
        parts.append(_phrase(german + endings[case].split()[column], english, "adjective"))
    word = noun.german[plural]
    if plural and case == "dative" and word[-1] not in "ns":
        word += "n"
    parts.append(_phrase(word, noun.english[plural], "noun"))
    if scope.depth < MAX_DEPTH and scope.happens(RELATIVE / 2**scope.depth):
        parts.append(_relative(scope.deeper(), kind, column))
    return _Nominal(_joined(*parts), 4 if plural else 2, column == 0 and case != "nominative")


def _determiner(scope: _Scope, stem: str, case: str, column: int) -> _Phrase:
    if stem == "number":
        return _phrase(*scope.random.choice(_NUMBERS), "number")
    english = _DETERMINERS[stem][column == 3]
    if stem == "der":
        return _phrase(_THE[case].split()[column], english, "determiner")
    endings = _DIES if stem in ("dies", "jed") else _EIN
    german = stem + endings[case].split()[column].strip("-")
    return _phrase(german, english, "negation" if stem == "kein" else "determiner")


def _relative(scope: _Scope, kind: str, column: int) -> _Phrase:
    """Make a relative clause about a noun of this kind, which is its subject or its object.

    It is the object only where no other reading is possible: "den" shows it, or else a pronoun is
    the subject.
    """
    english = "who" if kind == "person" else "that"
    if kind != "place" and scope.happens(0.4):
        opening = _phrase(_THE["accusative"].split()[column], english, "relative")
        frames: tuple[str, ...] = ("any",) if kind == "animal" else ("any", kind)
        subject = None
        if column:
            index = scope.random.randrange(len(_PRONOUNS))
            subject = _Nominal(_phrase(*_PRONOUNS[index], "pronoun"), _PERSONS[index])
        clause = _final(opening, _clause(scope, subject, frames, gap=True))
    else:
        opening = _phrase(_THE["nominative"].split()[column], english, "relative")
        frames = {"person": (), "animal": ("intransitive", "any")}.get(kind, ("copula",))
        subject = _Nominal(opening, 4 if column == 3 else 2)
        clause = _final(_Phrase([], []), _clause(scope, subject, frames))
    return _Phrase(_COMMA.de + clause.de + _COMMA.de, clause.en, clause.clauses)


def _phrase(german: str, english: str, category: str) -> _Phrase:
    return _Phrase([(german, category)], [(english, category)])


def _joined(*phrases: _Phrase) -> _Phrase:
    german = [word for phrase in phrases for word in phrase.de]
    english = [word for phrase in phrases for word in phrase.en]
    return _Phrase(german, english, sum(phrase.clauses for phrase in phrases))
