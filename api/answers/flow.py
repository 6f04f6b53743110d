"""A question becomes an answer: condensed, searched, read, generated or quoted, checked."""

import uuid
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from typing import NoReturn

import structlog

from api.access.principals import Principal
from api.admission import Slots
from api.answers.budget import Budget
from api.answers.cache import AnswerCache, Entry
from api.answers.generation import Generation
from api.answers.material import Material, Reader
from api.answers.sessions import Sessions
from api.answers.shapes import (
    Answer,
    AnswerTimings,
    ChatRequest,
    CitationFound,
    Event,
    RouteStep,
    Said,
    SearchResults,
)
from api.answers.state import Asked, State
from api.answers.words import words_for
from api.breakers import Breakers
from api.measured import Measured
from api.metrics import ANSWER_SECONDS, ANSWERS
from api.ports import Ports
from api.problems import Problem
from api.search import MAX_QUERY, Search
from processors.answers import prompts
from processors.answers.claims import Claim, ClaimReader
from processors.answers.extractive import quotes, relevance
from processors.answers.guard import Guard
from processors.answers.injection import suspicions
from processors.answers.prompts import NO_ANSWER, Exchange
from processors.answers.sources import cited
from processors.errors import UnavailableError
from processors.routing.budgets import BudgetError
from schemas.records import Vector
from schemas.settings import Settings

log = structlog.get_logger()

# How far what was found has to be about the question (Evidence.relevance) to be quoted, and to be worth asking a model
# about, which sees for itself (tests/eval_answers.py).
QUOTABLE = 0.75
WORTH_ASKING = 0.5
_REWRITE_TOKENS = 128


class Answers:
    """Answers questions. More than ``AEGIS_ANSWERS__MAX_IN_FLIGHT`` at once are refused with 429."""

    def __init__(
        self, ports: Ports, search: Search, settings: Settings, breakers: Breakers, sessions: Sessions
    ) -> None:
        self._ports = ports
        self._search = search
        self._settings = settings.answers
        self._context_tokens = settings.llm.context_tokens
        self._slots = Slots(self._settings.max_in_flight, "answers")
        self._generation = (
            Generation(ports.chat, breaker=breakers.named("llm"), threads=self._settings.max_in_flight)
            if ports.chat
            else None
        )
        self._reader = Reader(ports)
        self._sessions = sessions
        self._cache = AnswerCache(self._settings)
        self._last_change = Measured(lambda: _last_change(ports), max_age=0.5)

    @property
    def model(self) -> str | None:
        """The language model's name, if there is one."""
        return self._generation.name if self._generation else None

    def check(self) -> None:
        """Raise a 429 problem while all slots are taken."""
        self._slots.check()

    def asked(self, request: ChatRequest, caller: Principal) -> Asked:
        """The question in its conversation."""
        session_id = request.session_id or str(uuid.uuid4())
        return Asked(request, session_id, self._sessions.history(caller.name, session_id), caller)

    async def events(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """The steps of an answer; the last is ``final_answer``.

        Raises:
            Problem: 429, too many answers; 504, with what is known.
            UnavailableError: The store does not answer.
        """
        with self._slots.one():
            state = State(asked, Budget(self._settings.budget), words_for(asked.request.question))
            try:
                async with aclosing(self._steps(state)) as steps:
                    async for event in steps:
                        yield event
            except TimeoutError:
                _late(state)

    async def _steps(self, state: State) -> AsyncGenerator[Event, None]:
        asked, budget = state.asked, state.budget
        if kinds := sorted({one.kind for one in suspicions(asked.request.question)}):
            state.note(state.words.suspicious_question.format(kinds=", ".join(kinds)))
        state.query = await self._standalone(state)
        changes = await self._changes()
        [vector] = await budget.run("search", self._reader.embed([state.query]))
        if (entry := await self._cached(state, vector, changes)) is not None:
            for event in self._again(state, entry):
                yield event
            return
        request = asked.request.search.model_copy(update={"query": state.query})
        state.found = found = await budget.run("search", self._search.search(request, asked.caller))
        body = SearchResults(query=found.query, hits=found.hits, timings=found.timings, freshness=found.freshness)
        yield Event("search_results", body)
        material = await budget.run("evidence", self._reader.read(state.query, vector, found.hits))
        with budget.timed("generate"):
            async with aclosing(self._answered(state, material)) as answered:
                async for event in answered:
                    yield event
        answer = self._final(state, material)
        self._remember(state, vector, answer, changes)
        yield Event("final_answer", answer)

    async def _standalone(self, state: State) -> str:
        """The question so that it can be searched for without the conversation."""
        question, history = state.asked.request.question, state.asked.history
        if not history:
            return question
        if self._generation is not None and state.asked.request.generate:
            turns = prompts.rewrite_turns(question, history)
            within = state.budget.left("rewrite")
            try:
                with state.budget.timed("rewrite"):
                    said = await self._generation.whole(turns, max_tokens=_REWRITE_TOKENS, within=within)
                return prompts.rewritten(said, question, history)
            except (UnavailableError, TimeoutError) as error:
                log.warning("not-rewritten", error=repr(error))
        return prompts.with_terms(question, history)[:MAX_QUERY]

    async def _answered(self, state: State, material: Material) -> AsyncGenerator[Event, None]:
        about = material.evidence.relevance(material.words, material.vector)
        if self._generation is not None and state.asked.request.generate and about >= WORTH_ASKING:
            try:
                async with aclosing(self._generated(state, material, self._generation)) as generated:
                    async for event in generated:
                        yield event
                return
            except (UnavailableError, TimeoutError) as error:
                log.warning("not-generated", error=repr(error))
                if state.said and isinstance(error, TimeoutError):
                    raise
                state.is_degraded = True
                no_answer = state.words.no_budget if isinstance(error, BudgetError) else state.words.no_model
                state.note(state.words.broke_off if state.said else no_answer)
                if state.said:
                    state.outcome = "partial"
                    return
        for event in self._quoted(state, material) if about >= QUOTABLE else self._unknown(state):
            yield event

    async def _generated(self, state: State, material: Material, generation: Generation) -> AsyncGenerator[Event, None]:
        room = self._context_tokens - self._settings.max_tokens
        turns = prompts.answer_turns(state.query, material.sources, max_tokens=room)
        guard = Guard(material.sources, turns[0]["content"])
        reader, within = ClaimReader(), state.budget.left("generate")
        pieces = generation.pieces(turns, max_tokens=self._settings.max_tokens, within=within, follow=state.follow)
        async with aclosing(pieces) as said:
            async for piece in said:
                for claim in reader.read(piece):
                    for event in await self._checked(state, material, guard, claim):
                        yield event
        for claim in reader.rest():
            for event in await self._checked(state, material, guard, claim):
                yield event
        if not state.said.strip():
            for event in self._unknown(state):
                yield event
        else:
            state.outcome = "generated"

    async def _checked(self, state: State, material: Material, guard: Guard, claim: Claim) -> list[Event]:
        """A claim as it may leave, with the citations that hold."""
        if NO_ANSWER in claim.text:
            return []
        clean = guard.clean(claim.text)
        for kind in clean.removed:
            state.note(state.words.removed.format(kind=kind))
        claim = Claim(clean.text)
        if not claim.claims_something:
            return state.cite(claim.text, [])
        checked = await self._reader.check(claim, material)
        return state.cite(claim.text, checked.citations, checked.unsupported)

    def _quoted(self, state: State, material: Material) -> list[Event]:
        scores = relevance(material.evidence, material.words, material.vector)
        chosen = quotes(material.evidence, scores, limit=self._settings.quotes)
        state.outcome = "extractive"
        state.said = f"{state.words.extractive}\n"
        events = [Event("message", Said(text=state.said))]
        for sentence in chosen:
            quote = " ".join(sentence.text.split())
            events += state.cite(f"\n- “{quote}” [{sentence.source.number}]", [cited(sentence)])
        return events

    def _unknown(self, state: State) -> list[Event]:
        state.outcome = "unknown"
        state.said = state.words.unknown
        return [Event("message", Said(text=state.said))]

    def _final(self, state: State, material: Material) -> Answer:
        if any(source.suspicious for source in material.shown):
            state.note(state.words.suspicious_source)
        return Answer(
            session_id=state.asked.session_id,
            question=state.asked.request.question,
            query=state.query,
            answer=state.said.strip(),
            outcome=state.outcome,
            model=_model(state),
            route=_route(state),
            claims=state.claims,
            citations=state.citations,
            sources=list(material.shown),
            notes=state.notes,
            timings=_timings(state.budget),
            freshness=self._search.freshness(),
        )

    def _again(self, state: State, entry: Entry) -> list[Event]:
        """An answer given before, as if it were given now."""
        answer = entry.answer.model_copy(
            update={
                "session_id": state.asked.session_id,
                "question": state.asked.request.question,
                "query": state.query,
                "cached": True,
                "timings": _timings(state.budget),
                "freshness": self._search.freshness(),
            }
        )
        self._sessions.add(state.asked.caller.name, answer.session_id, Exchange(state.query, answer.answer))
        _count("cached", state.budget)
        citations = [Event("citation", CitationFound(citation=citation)) for citation in answer.citations]
        return [Event("message", Said(text=answer.answer)), *citations, Event("final_answer", answer)]

    def _remember(self, state: State, vector: Vector, answer: Answer, changes: Hashable) -> None:
        self._sessions.add(state.asked.caller.name, answer.session_id, Exchange(state.query, answer.answer))
        _count(answer.outcome, state.budget)
        if state.asked.request.cache and not state.is_degraded and answer.outcome != "partial":
            stored_id = state.asked.caller.stored_id
            documents = {stored_id(source.document_id): source.version for source in answer.sources}
            self._cache.add(self._scope(state), state.query, vector, answer, documents=documents, changes=changes)

    async def _cached(self, state: State, vector: Vector, changes: Hashable) -> Entry | None:
        if not state.asked.request.cache:
            return None
        entry = self._cache.find(self._scope(state), state.query, vector, changes)
        if entry is None or await state.budget.run("search", self._reader.still_live(entry.documents)):
            return entry
        self._cache.drop(entry)
        return None

    def _scope(self, state: State) -> Hashable:
        request = state.asked.request
        return state.asked.caller.tenant, repr(request.search), request.generate, self.model

    async def _changes(self) -> Hashable:
        try:
            return await self._last_change.get(within=1.0)
        except Exception:  # not known: as if something had changed
            return object()


def _model(state: State) -> str | None:
    return state.reply.model if state.reply and state.outcome != "extractive" else None


def _route(state: State) -> list[RouteStep] | None:
    if state.reply is None or not state.asked.request.search.explain:
        return None
    return [RouteStep(model=step.model, outcome=step.outcome) for step in state.reply.route]


def _last_change(ports: Ports) -> Hashable:
    """Another value whenever the index may have changed."""
    latest = ports.status.recent(1)
    return tuple((one.document_id, max((record.at for record in one.stages.values()), default=0.0)) for one in latest)


def _timings(budget: Budget) -> AnswerTimings:
    steps = {f"{step}_ms": round(seconds * 1000, 3) for step, seconds in budget.took.items()}
    return AnswerTimings(**steps, total_ms=round(budget.total() * 1000, 3))


def _count(outcome: str, budget: Budget) -> None:
    ANSWERS.labels(outcome).inc()
    ANSWER_SECONDS.labels("total").observe(budget.total())


def _late(state: State) -> NoReturn:
    raise Problem(
        504,
        "not-in-time",
        f"there was no whole answer within {state.budget.seconds:g} s; what is known is in this problem",
        query=state.query,
        hits=state.found.model_dump(mode="json")["hits"] if state.found else [],
        partial_answer=state.said or None,
        claims=[claim.model_dump() for claim in state.claims],
        timings=_timings(state.budget).model_dump(),
    )
