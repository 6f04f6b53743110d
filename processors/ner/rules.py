"""Mentions by rule, for English and German: what is left when no trained model is there.

The rules read capitals, and precision goes before recall. German writes every noun with one, so there a single word
must show more: be an acronym, carry a capital inside, follow a title, or stand where places stand ("in Berlin").
A type comes from the name itself or from a title before it, else it is MISC: an entity is keyed by type and name,
and a type guessed from the context would split it in two.
"""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from processors import lexicon
from processors.ner.dates import dates
from processors.ner.recogniser import Span
from processors.sentences import prose, sentences, takes_dot

Place = tuple[int, int]

_PRECISION = 0.77  # on Re-DocRED
_MAX_WORDS = 7  # more capitals in a row are a heading

# No part of an identifier (SNAKE_CASE) or of a tag (@name).
_WORD = re.compile(r"(?<![^\W_]_)(?<![@#$])(?<![^\W_])[^\W_](?:[^\W_]|[-'’&.](?=[^\W_]))*+(?!_[^\W_])")
_GERMAN_ROLE = re.compile(
    r"(?:präsident|minister|meister|trainer|chef|kanzler|sekretär|sprecher|direktor|politiker|sänger|spieler)(?:in)?$"
)
_GERMAN_NOUN = re.compile(r"(?:ung|heit|keit|schaft|tion|ität|nis|tum|ment|(?<!i|d)en|er|(?<!ell)e|ern|els|zeit|ig)$")
_GERMAN_ADJECTIVE_ENDINGS = ("e", "en", "er", "es")

_NO_NAME_ALONE = lexicon.PEOPLES | lexicon.COMPANY_WORDS | lexicon.ORGANISATION_WORDS | lexicon.PLACE_WORDS


class RuleRecogniser:
    """Finds PERSON, ORG, LOC, MISC and DATE, in time linear in the text."""

    name = "rules"

    def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """Names in texts, in order of their place; none overlap. All have the rules' precision as confidence."""
        return [list(_recognised(text)) for text in texts]


def _recognised(text: str) -> Iterator[Span]:
    visible = prose(text)
    types = dict.fromkeys(dates(visible), "DATE")
    for start, end in types:
        visible = visible[:start] + "\0" * (end - start) + visible[end:]
    types |= _Names(visible).in_sentences(list(sentences(visible)))
    for start, end in sorted(types):
        yield Span(start, end, types[start, end], _PRECISION)


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    text: str
    lower: str  # without a dot at the end
    is_name_like: bool
    opens: bool  # its capital may be there for the sentence's sake only

    @property
    def is_initial(self) -> bool:
        return len(self.text) == 2 and self.text[1] == "."

    @property
    def is_acronym(self) -> bool:
        return 2 <= len(self.text) <= 6 and self.text.isupper() and not self.is_initial

    @property
    def has_inner_capital(self) -> bool:
        rest = self.text[1:]
        return self.text.isalpha() and not rest.islower() and not rest.isupper() and len(rest) > 0

    @property
    def is_telling(self) -> bool:
        return self.is_acronym or self.has_inner_capital


@dataclass(frozen=True, slots=True)
class _Candidate:
    tokens: tuple[_Token, ...]
    type: str
    is_placed: bool  # stands where German puts a proper name: "in Berlin"

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(token.text for token in self.tokens)

    @property
    def span(self) -> Place:
        return self.tokens[0].start, self.tokens[-1].end


class _Names:
    """The names in one text, which decides them as a whole: by its language, and by what it writes elsewhere."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._german = lexicon.is_german(text)
        functions = lexicon.GERMAN_FUNCTION_WORDS if self._german else lexicon.ENGLISH_FUNCTION_WORDS
        self._no_names = functions | lexicon.COMMON_WORDS
        self._particles = lexicon.GERMAN_PARTICLES if self._german else lexicon.ENGLISH_PARTICLES
        self._lower_words = {word for word in _WORD.findall(text) if word.islower()}

    def in_sentences(self, sentences: Sequence[Place]) -> dict[Place, str]:
        """Spans of names with their types."""
        candidates = [candidate for sentence in sentences for candidate in self._candidates(sentence)]
        types = {candidate.words: candidate.type for candidate in candidates if candidate.type != "MISC"}
        types |= {words[-1:]: "PERSON" for words, type_ in types.items() if type_ == "PERSON"}
        known = {candidate.words for candidate in candidates if self._is_known_by(candidate)}
        return {
            candidate.span: types.get(candidate.words, "MISC")
            for candidate in candidates
            if candidate.words in types or self._shows(candidate, known)
        }

    def _tokens(self, start: int, end: int) -> Iterator[_Token]:
        previous = start
        for word in _WORD.finditer(self._text, start, end):
            surface = word[0][:-2] if word[0].endswith(("'s", "’s")) else word[0]
            if takes_dot(surface) and self._text[word.end() : word.end() + 1] == ".":
                surface += "."
            gap = self._text[previous : word.start()]
            lower = surface.lower().rstrip(".")
            yield _Token(
                start=word.start(),
                end=word.start() + len(surface),
                text=surface,
                lower=lower,
                is_name_like=surface[0].isupper() and (lower not in self._no_names or surface == "US"),
                opens=previous == start or any(mark in gap for mark in ':"“„«»'),
            )
            previous = word.end()

    def _candidates(self, sentence: Place) -> Iterator[_Candidate]:
        tokens = list(self._tokens(*sentence))
        if _is_shouted(tokens):
            return
        position = 0
        while position < len(tokens):
            first, position = position, position + 1
            if not tokens[first].is_name_like:
                continue
            particles = self._particles - {"of"} if self._is_title(tokens[first]) else self._particles
            while (following := self._following(tokens, position - 1, particles)) is not None:
                position = following + 1
            before = tokens[first - 1].text if first and self._are_joined(*tokens[first - 1 : first + 1]) else ""
            candidate = self._candidate(tokens[first:position], before)
            if candidate is not None:
                yield candidate

    def _following(self, tokens: Sequence[_Token], position: int, particles: Set[str]) -> int | None:
        """Position of the capitalised word that goes on with the name, beyond a particle and its article."""
        for small_words in (particles, lexicon.ARTICLES, frozenset[str]()):
            position += 1
            if position == len(tokens) or not self._are_joined(*tokens[position - 1 : position + 1]):
                return None
            if tokens[position].is_name_like:
                return position
            if tokens[position].text not in small_words:
                return None
        return None

    def _are_joined(self, token: _Token, following: _Token) -> bool:
        gap = self._text[token.end : following.start]
        return gap.isspace() or gap == " & "

    def _candidate(self, tokens: Sequence[_Token], before: str) -> _Candidate | None:
        if len(tokens) > _MAX_WORDS:
            return None
        placed = self._german and _is_placed(tokens, before)
        if placed and len(tokens) > 1:
            tokens = tokens[1:]  # "der Konzern BASF"
        titled = False
        while len(tokens) > 1 and self._is_title(tokens[0]):
            titled, tokens = True, tokens[1:]
        while len(tokens) > 1 and not (tokens[0].is_name_like and self._may_begin(tokens[0])):
            tokens = tokens[1:]
        if not tokens[0].is_name_like or self._is_title(tokens[0]):
            return None
        return _Candidate(tuple(tokens), "PERSON" if titled else _type(tokens), placed)

    def _is_title(self, token: _Token) -> bool:
        return token.lower in lexicon.TITLES or (self._german and _GERMAN_ROLE.search(token.lower) is not None)

    def _may_begin(self, token: _Token) -> bool:
        return not token.opens or token.lower not in self._lower_words

    def _is_known_by(self, candidate: _Candidate) -> bool:
        alone = len(candidate.tokens) == 1
        return candidate.is_placed or not (candidate.tokens[0].opens or (self._german and alone))

    def _shows(self, candidate: _Candidate, known: set[tuple[str, ...]]) -> bool:
        """Whether a candidate without a type shows enough to be a name."""
        first, last = candidate.tokens[0], candidate.tokens[-1]
        if len(candidate.tokens) == 1:
            is_word = first.lower in self._lower_words or len(first.text) == 1
            is_name = first.is_telling or (candidate.words in known and not is_word)
            return is_name and first.lower not in _NO_NAME_ALONE
        if not self._german:
            return True
        is_genitive = len(candidate.tokens) == 2 and last.text.endswith("s") and not last.is_telling
        return candidate.words in known and not is_genitive  # "Süden Irlands"


def _type(tokens: Sequence[_Token]) -> str:
    words = [token.lower for token in tokens]
    if any("-" in word and word.rsplit("-", 1)[1] in lexicon.ORGANISATION_WORDS for word in words):
        return "ORG"
    if len(words) == 1:
        return "MISC"
    if words[-1] in lexicon.COMPANY_WORDS or not lexicon.ORGANISATION_WORDS.isdisjoint(words):
        return "ORG"
    if words[0] in lexicon.PLACE_WORDS or words[-1] in lexicon.PLACE_WORDS:
        return "LOC"
    has_initial = any(token.is_initial for token in tokens[:-1]) and len(words[-1]) > 1
    return "PERSON" if has_initial or "van" in words else "MISC"


def _is_placed(tokens: Sequence[_Token], before: str) -> bool:
    first = tokens[0]
    if len(tokens) > 1:
        is_noun = not first.is_telling and not first.text.endswith(_GERMAN_ADJECTIVE_ENDINGS)
        return before in lexicon.GERMAN_DETERMINERS and is_noun and _type(tokens) == "MISC"
    is_noun = first.lower in lexicon.NO_PLACES or _GERMAN_NOUN.search(first.text) is not None
    return before in ("in", "aus", "nach") and not is_noun


def _is_shouted(tokens: Sequence[_Token]) -> bool:
    return len(tokens) > 3 and 2 * sum(token.text.isupper() for token in tokens) > len(tokens)
