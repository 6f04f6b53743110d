"""What a language model is asked, with everything that others wrote between fences that they cannot forge."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from processors.answers.sources import Source
from processors.llm import Turn, fence, turn

NO_ANSWER = "NO_ANSWER"
_ANSWER = (Path(__file__).parent / "answer_v1.txt").read_text(encoding="utf-8")
_REWRITE = (Path(__file__).parent / "rewrite_v1.txt").read_text(encoding="utf-8")
_CHARS_PER_TOKEN = 3
_MAX_QUESTION_CHARS = 512
_MAX_SAID_CHARS = 1000
_WORD = re.compile(r"\w{3,}")


class Exchange(NamedTuple):
    """A question of a conversation, and what was answered."""

    question: str
    answer: str


def answer_turns(question: str, sources: Sequence[Source], *, max_tokens: int) -> list[Turn]:
    """The question with as many of the passages, the best first, as there is room for; at least one, cut if need be."""
    room = max(max_tokens * _CHARS_PER_TOKEN - len(_ANSWER) - len(question), 1000)
    parts: list[tuple[str, str]] = []
    for source in sources:
        text = source.harmless_text
        if parts and len(text) > room:
            break
        title = f" of {' '.join(source.title.split())}" if source.title else ""
        parts.append((f"passage {source.number}", f"{title.strip()}\n{text[:room]}".strip()))
        room -= len(text) + len(title)
    return _fenced(_ANSWER, [*parts, ("question", question)])


def rewrite_turns(question: str, history: Sequence[Exchange]) -> list[Turn]:
    """The question and the conversation before it."""
    said = [
        part
        for exchange in history
        for part in (("question before", exchange.question), ("answer before", exchange.answer[:_MAX_SAID_CHARS]))
    ]
    return _fenced(_REWRITE, [*said, ("question", question)])


def rewritten(said: str, question: str, history: Sequence[Exchange]) -> str:
    """The question that a model made; where it is of no use, ``with_terms``."""
    line = " ".join(said.strip().strip('"“”').split())
    return line if 0 < len(line) <= _MAX_QUESTION_CHARS else with_terms(question, history)


def with_terms(question: str, history: Sequence[Exchange]) -> str:
    """The question, and behind it the words of the one before that it has not."""
    if not history:
        return question
    own = {word.lower() for word in _WORD.findall(question)}
    terms = [word for word in _WORD.findall(history[-1].question) if word.lower() not in own]
    return " ".join([question, *dict.fromkeys(terms)])[: max(len(question), _MAX_QUESTION_CHARS)]


def _fenced(prompt: str, parts: Sequence[tuple[str, str]]) -> list[Turn]:
    mark = fence([text for _, text in parts])
    body = "\n".join(f"{mark} {name}\n{text}" for name, text in parts)
    return [turn("system", prompt.format(fence=mark, no_answer=NO_ANSWER)), turn("user", f"{body}\n{mark} end")]
