"""Names, a small lexicon, and sentences written with the roles of their words.

A sentence is written as marked text: `word/role` has that role, `word*` is a verb, and every other
word has the role that a lexicon gives it, or is a number, or else `content`.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

Words = list[tuple[str, str]]
"""Words with their roles."""


def listed(text: str) -> list[str]:
    """Split a text into its words."""
    return text.split()


MEN = listed(
    """
    Adam Bruno Carl David Emil Felix Georg Hugo Ivan Jonas Karim Lukas Martin Nils Oscar Paul Rolf Simon
    Tomas Viktor
    """
)
WOMEN = listed(
    """
    Anna Berta Clara Dora Elena Frida Greta Helen Irene Julia Karla Laura Maria Nora Olga Petra Rosa
    Sofia Tessa Vera
    """
)
TOWNS = listed(
    """
    Ashford Brenton Calder Dunmore Elster Fenwick Garmouth Holt Kelmar Lindow Marbeck Norvik Osburg Tarn
    Wexley
    """
)
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
COUNTS = listed("one two three four five six seven eight nine ten eleven twelve")
"""Small numbers in words: `COUNTS[n - 1]` is n."""

_PRONOUNS = listed(
    """
    I you he she it we they me him her us them my your his its our their mine yours hers himself herself
    themselves
    """
)
_FUNCTION = listed(
    """
    . , ; : ? ! ' the a an this that these those some every each no any both all many and or but so
    because if when while after before until since than as of in on at to from for with without by under
    over near into about against around between during behind across is are was were be been has have had
    do does did will would can could may might must shall should not there then who which what where how
    why also again still only very too just up out off away down
    """
)
LEXICON = (
    dict.fromkeys(_FUNCTION, "function")
    | dict.fromkeys(_PRONOUNS, "pronoun")
    | dict.fromkeys(COUNTS, "number")
)


class Person(NamedTuple):
    """Somebody with a name and the pronouns that go with it."""

    name: str
    female: bool

    @property
    def he(self) -> str:
        """Return the pronoun of a subject."""
        return "she" if self.female else "he"

    @property
    def him(self) -> str:
        """Return the pronoun of an object."""
        return "her" if self.female else "him"

    @property
    def his(self) -> str:
        """Return the possessive pronoun."""
        return "her" if self.female else "his"


_MEN = [Person(name, False) for name in MEN]
_WOMEN = [Person(name, True) for name in WOMEN]


def people(generator: random.Random, count: int, female: bool | None = None) -> list[Person]:
    """Choose different people: all women, all men, or (None) anybody."""
    return generator.sample(_MEN + _WOMEN if female is None else _WOMEN if female else _MEN, count)


def tagged(text: str, lexicon: dict[str, str]) -> Words:
    """Parse marked text into words with their roles."""
    words: Words = []
    for marked in text.split():
        if marked[-1] == "*":
            words.append((marked[:-1], "verb"))
            continue
        word, _, role = marked.partition("/")
        words.append((word, role or lexicon.get(word) or ("number" if word.isdigit() else "content")))
    return words


def mark(phrase: str, role: str) -> str:
    """Give all words of marked text one role, whatever theirs were."""
    return " ".join(f"{word.rstrip('*').partition('/')[0]}/{role}" for word in phrase.split())


def text_of(words: Words) -> str:
    """Join words with spaces."""
    return " ".join(word for word, _ in words)


def roles_of(words: Words) -> list[str]:
    """Return the role of each word."""
    return [role for _, role in words]


def an(phrase: str) -> str:
    """Put "a" or "an" before a phrase, whichever it needs."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def zipf(generator: random.Random, items: Sequence[Item]) -> Item:
    """Choose an item with probability about 1 / (rank + 3): frequent and rare ones."""
    limit = (len(items) + 3) / 3
    return items[min(int(3 * limit ** generator.random()) - 3, len(items) - 1)]
