"""Subwords as text, the words they make up, and the category that a labelled corpus gives each of them.

A **word** is what a reader would look up. It is put together from subwords by the tokenizer's own mark:
WordPiece goes on with `##`, FSMT's BPE ends with `</w>`, and a byte-level token starts a new word
if it starts with white space or if letters, digits and other characters change, so that punctuation
stands alone everywhere. Words are compared in lower case. Special tokens and line ends are no words.

A **category** belongs to the white-space separated words of the generated text. A token has the
category of the word in which its first character stands.
"""

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from enum import Enum

from transformers import FSMTTokenizer, PreTrainedTokenizerBase

from repro.tasks.base import Row

Raw = bytes | None
"""A token's own characters in UTF-8, with white space; None for a special token."""
Labelled = list[tuple[str, str]]
"""White-space separated words with their categories."""


class WordMarks(Enum):
    """How a vocabulary marks where words begin or end."""

    WORDPIECE = "`##` before a subword that goes on with a word"
    END_OF_WORD = "`</w>` after the last subword of a word"
    BYTE_LEVEL = "white space within the tokens"


def word_marks(vocabulary: Iterable[str]) -> WordMarks:
    """Return how a vocabulary marks words."""
    tokens = list(vocabulary)
    if any(token.endswith("</w>") for token in tokens):
        return WordMarks.END_OF_WORD
    # A WordPiece vocabulary may hold a letter that is also the byte-level sign of a space.
    if any(token.startswith("##") and len(token) > 2 for token in tokens) and "[CLS]" in tokens:
        return WordMarks.WORDPIECE
    return WordMarks.BYTE_LEVEL


def _byte_signs() -> dict[str, int]:
    """Return the byte of each printable sign of byte-level vocabularies, as GPT-2 defined them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {chr(byte): byte for byte in printable}
    return signs | {chr(256 + number): byte for number, byte in enumerate(others)}


_SIGNS = _byte_signs()


def raw_text(token: str, marks: WordMarks) -> bytes:
    """Return the characters that a token of the vocabulary stands for, in UTF-8 and with white space."""
    if marks is WordMarks.WORDPIECE:
        return token.removeprefix("##").encode()
    if marks is WordMarks.END_OF_WORD:
        return token.removesuffix("</w>").encode()
    pieces = [bytes([_SIGNS[sign]]) if sign in _SIGNS else sign.encode() for sign in token]
    return b"".join(pieces)


def token_strings(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stack: str) -> list[str | None]:
    """Return the tokens of the vocabulary, None for special ones.

    FSMT's own tokenizer has a vocabulary per language, and by itself decodes the target's alone.
    """
    special = set(tokenizer.all_special_ids)
    if stack == "encoder" and isinstance(tokenizer, FSMTTokenizer):
        source = {number: token for token, number in tokenizer.encoder.items()}
        tokens = [source.get(number, "") for number in ids]
    else:
        tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return [None if number in special else token for number, token in zip(ids, tokens, strict=True)]


def words_of(tokens: Sequence[str | None], marks: WordMarks) -> tuple[list[int | None], list[str]]:
    """Put words together from subwords.

    Returns:
        For each token the index of its word, None if it belongs to none; and the words in lower case.
    """
    word_S: list[int | None] = []
    words: list[bytes] = []
    previous: str | None = None
    for token in tokens:
        raw = b"" if token is None else raw_text(token, marks)
        if token is None or not raw.strip():
            word_S.append(None)
            previous = None
            continue
        if previous is None or _begins_word(token, previous, marks):
            words.append(b"")
        words[-1] += raw
        word_S.append(len(words) - 1)
        previous = token
    return word_S, [word.strip().decode("utf-8", "replace").lower() for word in words]


def _begins_word(token: str, previous: str, marks: WordMarks) -> bool:
    if marks is WordMarks.WORDPIECE:
        return not token.startswith("##")
    if marks is WordMarks.END_OF_WORD:
        return previous.endswith("</w>")
    first, last = raw_text(token, marks)[0], raw_text(previous, marks)[-1]
    return bytes([first]).isspace() or _kind(first) != _kind(last)


def _kind(byte: int) -> str:
    """Tell letters from digits and signs; every byte beyond ASCII counts as a letter's."""
    if byte >= 128 or bytes([byte]).isalpha():
        return "letter"
    return "digit" if bytes([byte]).isdigit() else "sign"


def labelled_texts(row: Row, columns: Sequence[str]) -> list[Labelled]:
    """Return the texts of a generated row with the category of each word; none of a row without labels.

    Args:
        columns: those of the task; a plain list of categories belongs to the first.
    """
    categories = row.get("categories")
    if isinstance(categories, list):
        categories = {columns[0]: categories}
    if not isinstance(categories, dict):
        return []
    columns_of_text = row.get("translation", row)
    labelled = []
    for column, labels in categories.items():
        content = columns_of_text[column]
        # A column holds one text, a list of them, or an object that has the list (`choices`).
        content = content["text"] if isinstance(content, dict) else content
        pairs = [(content, labels)] if isinstance(content, str) else zip(content, labels, strict=True)
        labelled += [list(zip(text.split(), of_words, strict=True)) for text, of_words in pairs]
    return labelled


class LabelledText:
    """Labelled texts, in which the category of a token is looked up; white space and case do not count."""

    def __init__(self, texts: Iterable[Labelled], marks: WordMarks) -> None:
        self._marks = marks
        letters, categories = bytearray(b"\0"), [""]
        for text in texts:
            for word, category in text:
                spelling = self._spelling(word.encode())
                letters += spelling
                categories += [category] * len(spelling)
            letters += b"\0"  # no match reaches across two texts
            categories.append("")
        self._letters, self._categories = bytes(letters), categories

    def categories(self, raws: Sequence[Raw]) -> list[str | None]:
        """Return the category of each token of a sequence; None for special tokens and unknown text.

        Tokens between two special ones are looked up together: as a whole text first, then as the
        beginning or the end of one, then inside; each after the one before, if it stands there.
        """
        categories: list[str | None] = []
        start = 0
        for _, neighbours in itertools.groupby(raws, lambda raw: raw is None):
            tokens = list(neighbours)
            segment = [self._spelling(raw) for raw in tokens if raw is not None]
            place = self._locate(b"".join(segment), start)
            if place is None:
                categories += [None] * len(tokens)
                continue
            for letters in segment:
                categories.append((self._categories[place] or None) if letters else None)
                place += len(letters)
            start = place
        return categories

    def _locate(self, segment: bytes, start: int) -> int | None:
        """Return where the letters of a segment stand, from `start` on if they do; None if nowhere."""
        if not segment:
            return None
        for pattern, shift in (
            (b"\0" + segment + b"\0", 1),
            (b"\0" + segment, 1),
            (segment + b"\0", 0),
            (segment, 0),
        ):
            for begin in (max(0, start - 1), 0):
                place = self._letters.find(pattern, begin)
                if place >= 0:
                    return place + shift
        return None

    def _spelling(self, raw: bytes) -> bytes:
        """Return text without white space, in lower case, and as BERT writes letters with accents."""
        joined = b"".join(raw.split())
        if self._marks is not WordMarks.WORDPIECE:
            return joined.lower()
        letters = unicodedata.normalize("NFD", joined.decode("utf-8", "replace").lower())
        return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn").encode()
