"""Entities and relations by one question to a language model; what it says is looked up in the text."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from processors import asking
from processors.asking import Asker, PartlyAnsweredError
from processors.breaker import Breaker
from processors.dedup import deduplicated
from processors.extract import UNOBSERVED, Extractor, Found, Observer, mentions_of, with_untyped
from processors.llm import Chat
from processors.ner.other_labels import published_type
from processors.ner.recogniser import Span, with_dates
from processors.relations.llm_question import evidence_in
from processors.single_pass.question import (
    MAX_ENTITIES,
    MAX_RELATIONS,
    MAX_TEXT,
    PROMPT_CHARS,
    SCHEMA,
    VERSION,
    Claim,
    Named,
    Passage,
    Question,
    Reading,
)
from schemas.ids import entity_id
from schemas.records import Mention, Relation
from schemas.settings import Llm
from schemas.vocabulary import fits

PIPELINE = "llm_single_pass"

_CONFIDENCE = 0.8  # a model's own number says little (Xiong et al. 2024)
_UNREAD = "the language model's answer cannot be read"
_UNREADABLE = Reading(chunk=0, entities=(), relations=())


class SinglePassExtractor:
    """What a language model reads in one pass, and the three phases for the texts of which it says nothing.

    Taken is what the text itself holds: a name that is not in it is dropped, and so are relations between other ends,
    of other types, or whose evidence is not in the text.

    Args:
        settings: The model, and how to ask.
        fallback: Reads the texts that the model does not answer for, or that are too long for it.
        max_mentions: Of each text, so many mentions are kept, the first ones.
        breaker: Its state says whether the model is asked.
        observe: Told of every phase.
        chat: Who is asked, if not the one model of the settings.
    """

    def __init__(
        self,
        settings: Llm,
        *,
        fallback: Extractor,
        max_mentions: int,
        breaker: Breaker,
        observe: Observer = UNOBSERVED,
        chat: Chat | None = None,
    ) -> None:
        self.name = name_of(settings)
        self._fallback = fallback
        self._max_mentions = max_mentions
        self._observe = observe
        self._asker: Asker[Passage, Reading] = Asker(
            settings,
            Question,
            schema=SCHEMA,
            prompt_chars=PROMPT_CHARS,
            empty=_UNREADABLE,
            breaker=breaker,
            observe=asking.UNOBSERVED,
            chat=chat,
        )

    def close(self) -> None:
        """Close the connections."""
        self._asker.close()

    def extract(self, texts: Sequence[str]) -> list[Found]:
        """As ``processors.extract.Pipeline.extract``."""
        begun = time.perf_counter()
        answers = self._answers(texts)
        found = {
            place: self._found(texts[place], reading)
            for place, reading in enumerate(answers)
            if isinstance(reading, Reading)
        }
        if found:
            self._observe.phase("single_pass", time.perf_counter() - begun, pipeline=PIPELINE)
        open_ones = {place: reason for place, reason in enumerate(answers) if isinstance(reason, str)}
        others = self._fallback.read([texts[place] for place in open_ones]) if open_ones else []
        for (place, reason), one in zip(open_ones.items(), others, strict=True):
            degraded = {"single_pass": reason, **one.degraded}
            found[place] = Found(one.mentions, one.relations, one.pipeline, degraded)
        in_order = [found[place] for place in range(len(texts))]
        self._observe.found(in_order)
        return in_order

    def _answers(self, texts: Sequence[str]) -> list[Reading | str]:
        """What the model reads in each text, or why it reads nothing."""
        answers: list[Reading | str] = [f"a chunk is longer than {MAX_TEXT:,} characters" for _ in texts]
        asked = [place for place, text in enumerate(texts) if len(text) <= MAX_TEXT]
        unanswered = ""
        try:
            readings: Sequence[Reading | None] = self._asker.ask([Passage(texts[place]) for place in asked])
        except PartlyAnsweredError as error:
            self._observe.failed("single_pass", error)
            readings, unanswered = error.answers, str(error)
        if any(reading is _UNREADABLE for reading in readings):
            self._observe.failed("single_pass", ValueError(_UNREAD))
        for place, reading in zip(asked, readings, strict=True):
            answers[place] = unanswered if reading is None else _UNREAD if reading is _UNREADABLE else reading
        return answers

    def _found(self, text: str, reading: Reading) -> Found:
        spans = with_dates(text, list(_spans(text, reading.entities[:MAX_ENTITIES])))
        mentions = deduplicated(mentions_of(text, spans)[: self._max_mentions])
        relations = tuple(islice(_relations(text, mentions, reading.relations), MAX_RELATIONS))
        return Found(tuple(mentions), with_untyped(text, mentions, relations), self.name)


def name_of(settings: Llm) -> str:
    """What ``Found.pipeline`` says where this model read the text."""
    return f"llm-single-pass-{VERSION}/{settings.label}"


def _spans(text: str, entities: Sequence[Named]) -> Iterator[Span]:
    """Everywhere that a text has the names, the longest where several would fit; it may break its lines within one."""
    types = {
        " ".join(one.name.split()): type_
        for one in entities
        if (type_ := published_type(one.type, one.name)) is not None
    }
    if not types:
        return
    names = (r"\s+".join(map(re.escape, name.split())) for name in sorted(types, key=len, reverse=True))
    for found in re.finditer(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)", text):
        yield Span(found.start(), found.end(), types[" ".join(found[0].split())], _CONFIDENCE)


def _relations(text: str, mentions: Sequence[Mention], claims: Sequence[Claim]) -> Iterator[Relation]:
    by_name = {" ".join(one.text.split()): one for one in mentions}
    taken: set[tuple[str, str, str]] = set()
    for claim in claims:
        relation = _relation(text, by_name, claim)
        if relation and (key := (relation.source, relation.type, relation.target)) not in taken:
            taken.add(key)
            yield relation


def _relation(text: str, by_name: Mapping[str, Mention], claim: Claim) -> Relation | None:
    """The relation that is claimed, if the text bears it out."""
    ends = [by_name.get(" ".join(name.split())) for name in (claim.source, claim.target)]
    evidence = evidence_in(text, claim.evidence)
    source, target = ends
    if source is None or target is None or not any(one.text in evidence for one in (source, target)):
        return None
    ids = [entity_id(one.type, one.name) for one in (source, target)]
    if ids[0] == ids[1] or not fits(claim.type, source.type, target.type):
        return None
    return Relation(source=ids[0], target=ids[1], type=claim.type, evidence=evidence, confidence=_CONFIDENCE)
