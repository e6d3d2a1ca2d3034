"""Subwords as text, the words they make up, and the category that a labelled corpus gives each of them.

A **word** is what a reader would look up. It is put together from subwords by the tokenizer's own mark:
WordPiece goes on with `##`, FSMT's BPE ends with `</w>`, and a byte-level token starts a new word
if it starts with white space or if letters, digits and other characters change, so that punctuation
stands alone everywhere. Words are compared in lower case. Special tokens and line ends are no words.

A **category** belongs to the white-space separated words of the generated text. A token has the
category of the word in which its first character stands.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

WORDPIECE, END_OF_WORD, BYTE_LEVEL = "wordpiece", "end-of-word", "byte-level"

Raw = bytes | None
"""A token's own characters, with white space; None for a special token."""
Labelled = list[tuple[str, str]]
"""White-space separated words with their categories."""


def marking(vocabulary: Iterable[str]) -> str:
    """How a vocabulary marks where words begin or end."""
    tokens = list(vocabulary)
    if any(token.endswith("</w>") for token in tokens):
        return END_OF_WORD
    # A WordPiece vocabulary may hold a letter that is also the byte-level sign of a space.
    if any(token.startswith("##") and len(token) > 2 for token in tokens) and "[CLS]" in tokens:
        return WORDPIECE
    return BYTE_LEVEL


def _byte_signs() -> dict[str, int]:
    """The printable sign that byte-level vocabularies use for each byte, as GPT-2 defined them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {chr(byte): byte for byte in printable}
    return signs | {chr(256 + number): byte for number, byte in enumerate(others)}


_SIGNS = _byte_signs()


def raw_text(token: str, marks: str) -> bytes:
    """The characters that a token of the vocabulary stands for, in UTF-8; white space is kept."""
    if marks == WORDPIECE:
        return token.removeprefix("##").encode()
    if marks == END_OF_WORD:
        return token.removesuffix("</w>").encode()
    pieces = [bytes([_SIGNS[sign]]) if sign in _SIGNS else sign.encode() for sign in token]
    return b"".join(pieces)


def token_strings(tokenizer: Any, ids: Sequence[int], stack: str) -> list[str | None]:
    """The tokens of the vocabulary, None for special ones.

    FSMT's own tokenizer has a vocabulary per language, and by itself decodes the target's alone.
    """
    special = set(tokenizer.all_special_ids)
    if stack == "encoder" and getattr(tokenizer, "src_lang", None):
        names = {number: token for token, number in tokenizer.encoder.items()}
        found = [names.get(number, "") for number in ids]
    else:
        found = tokenizer.convert_ids_to_tokens(list(ids))
    return [None if number in special else token for number, token in zip(ids, found, strict=True)]


def words_of(tokens: Sequence[str | None], marks: str) -> tuple[list[int | None], list[str]]:
    """The word that each token belongs to (None: no word), and the words in lower case, in order."""
    places: list[int | None] = []
    words: list[bytes] = []
    before: str | None = None
    for token in tokens:
        raw = b"" if token is None else raw_text(token, marks)
        if token is None or not raw.strip():
            places.append(None)
            before = None
            continue
        if before is None or _begins(token, before, marks):
            words.append(b"")
        words[-1] += raw
        places.append(len(words) - 1)
        before = token
    return places, [word.strip().decode("utf-8", "replace").lower() for word in words]


def _begins(token: str, before: str, marks: str) -> bool:
    if marks == WORDPIECE:
        return not token.startswith("##")
    if marks == END_OF_WORD:
        return before.endswith("</w>")
    first, last = raw_text(token, marks)[0], raw_text(before, marks)[-1]
    return bytes([first]).isspace() or _kind(first) != _kind(last)


def _kind(byte: int) -> str:
    """Letters are told from digits and signs; every byte beyond ASCII counts as a letter's."""
    if byte >= 128 or bytes([byte]).isalpha():
        return "letter"
    return "digit" if bytes([byte]).isdigit() else "sign"


def labelled_texts(row: dict[str, Any], columns: Sequence[str]) -> list[Labelled]:
    """The texts of a generated row with the category of each word; none of a row without labels.

    Args:
        columns: those of the task; a plain list of categories belongs to the first.
    """
    categories = row.get("categories")
    if isinstance(categories, list):
        categories = {columns[0]: categories}
    if not isinstance(categories, dict):
        return []
    holder = row.get("translation", row)
    texts = []
    for name, roles in categories.items():
        given = holder[name]
        pairs = [(given, roles)] if isinstance(given, str) else list(zip(given, roles, strict=True))
        for text, own in pairs:
            texts.append(list(zip(text.split(), own, strict=True)))
    return texts


class LabelledText:
    """Labelled texts in which pieces of token text can be found again, without white space and case."""

    def __init__(self, texts: Iterable[Labelled], marks: str) -> None:
        self._marks = marks
        data, roles = bytearray(b"\0"), [""]
        for text in texts:
            for word, role in text:
                letters = self._plain(word.encode())
                data += letters
                roles += [role] * len(letters)
            data += b"\0"  # nothing is found across two texts
            roles.append("")
        self._data, self._roles = bytes(data), roles

    def categories(self, raws: Sequence[Raw]) -> list[str | None]:
        """The category of each token of a sequence; None for special tokens and what is not found.

        Tokens between two special ones are looked up together: as a whole text first, then as the
        beginning or the end of one, then inside; each after the one before, if it is found there.
        """
        plain = [None if raw is None else self._plain(raw) for raw in raws]
        found: list[str | None] = []
        start = 0
        while len(found) < len(plain):
            if plain[len(found)] is None:
                found.append(None)
                continue
            piece: list[bytes] = []
            for raw in plain[len(found) :]:
                if raw is None:
                    break
                piece.append(raw)
            place = self._locate(b"".join(piece), start)
            if place is None:
                found += [None] * len(piece)
                continue
            for letters in piece:
                found.append((self._roles[place] or None) if letters else None)
                place += len(letters)
            start = place
        return found

    def _locate(self, piece: bytes, start: int) -> int | None:
        if not piece:
            return None
        for pattern, shift in (
            (b"\0" + piece + b"\0", 1),
            (b"\0" + piece, 1),
            (piece + b"\0", 0),
            (piece, 0),
        ):
            for begin in (max(0, start - 1), 0):
                place = self._data.find(pattern, begin)
                if place >= 0:
                    return place + shift
        return None

    def _plain(self, raw: bytes) -> bytes:
        """Without white space, in lower case, and as BERT writes letters with accents."""
        joined = b"".join(raw.split())
        if self._marks != WORDPIECE:
            return joined.lower()
        letters = unicodedata.normalize("NFD", joined.decode("utf-8", "replace").lower())
        return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn").encode()
