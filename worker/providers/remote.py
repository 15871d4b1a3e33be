"""One model over HTTP: admission, one attempt after the other, deadlines, and what was learned on the way.

What differs between vendors (address, body, stream) is in the subclasses; what an error means is in `http.py`; whether
and when to call again is in `core/retry.py`.
"""

from __future__ import annotations

import asyncio
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal, Protocol

import httpx
import structlog

from worker.core.errors import (
    AnswerCutOff,
    ConfigurationError,
    ContentFiltered,
    EmptyAnswer,
    NoBalance,
    Overloaded,
    ParameterRefused,
    QuotaUsedUp,
    RateLimited,
    RequestTooLong,
    ReviewError,
    Stalled,
    UnknownModel,
    Unprocessable,
    Unreachable,
)
from worker.core.exchange import STANDIN_MODEL, Answer, Prompt
from worker.core.images import Image
from worker.core.model_info import LEAST_INPUT_TOKENS, ModelInfo, narrowed
from worker.core.retry import GiveUp, Retry
from worker.core.retry import decide as by_error_class
from worker.core.usage import Usage
from worker.ports import Clock, Cost, Flow, Throttle, unchecked
from worker.providers.account import models_offered, next_reset, open_client, read_bounded
from worker.providers.endpoint import Endpoint
from worker.providers.http import PASSES, classify, classify_complaint, complaint_in, not_reached, safe_words
from worker.providers.reply import Reader, Reply
from worker.providers.streams import Event, EventReader, EventTooLong

Thinking = Literal["default", "off", "low", "medium", "high"]
Body = dict[str, object]

log = structlog.get_logger(__name__)

BALANCE_PAUSE_S = 1800.0
"""How long an account without money is left alone."""
MAX_ERROR_BYTES = 64_000
MAX_WHOLE_BYTES = 32_000_000

OURS = frozenset({"model", "messages", "system", "stream", "max_completion_tokens", "max_tokens"})
"""Members that LLM_EXTRA_BODY may not replace: the window and the account's limits are reckoned with them."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. Any byte counts as life, reasoning and comments included; `total_s` ends even a lively stream."""

    first_byte_s: float = 300.0
    idle_s: float = 300.0
    total_s: float = 1500.0
    after_finish_s: float = 15.0
    """For usage and the end mark, once the answer is whole."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator wants of every request."""

    thinking: Thinking = "default"
    extra_body: Mapping[str, object] = field(default_factory=dict)
    """Merged last; a member given here replaces ours whole."""


class Randomness(Protocol):
    def __call__(self) -> float:
        """Uniform in [0, 1)."""


class TellWindow(Protocol):
    async def __call__(self, limit_tokens: int, /) -> None:
        """The server called this its limit when it refused a request."""


class Decide(Protocol):
    def __call__(self, error: Exception, *, attempt: int, elapsed_s: float, random: float) -> Retry | GiveUp:
        """As `core/retry.py`."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    reply: Reply
    usage: Usage
    seconds: float
    broke_off: str
    """Why the stream ended before it said so; empty when it did."""


class RemoteModel(ABC):
    """Implements `worker.ports.Model`. Safe to share between threads and event loops: it holds no connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        info: ModelInfo,
        throttle: Throttle,
        clock: Clock,
        wishes: Wishes | None = None,
        deadlines: Deadlines | None = None,
        is_standin: bool = False,
        refused: set[str] | None = None,
        tell_window: TellWindow | None = None,
        randomness: Randomness = random.random,
        decide: Decide = by_error_class,
    ) -> None:
        """`info` describes `endpoint.model`; `refused` is what its server is known not to take, and grows.

        `tell_window` hears of a window that is smaller than `info` says.

        Raises `ConfigurationError` for an LLM_EXTRA_BODY that breaks requests.
        """
        self.endpoint = endpoint
        self.info = info
        self._throttle = throttle
        self._clock = clock
        self._wishes = wishes or Wishes()
        self._deadlines = deadlines or Deadlines()
        self._is_standin = is_standin or endpoint.model == STANDIN_MODEL
        self._tell_window = tell_window
        self._randomness = randomness
        self._decide = decide
        self._refused = set() if refused is None else refused
        taken = sorted(OURS.intersection(self._wishes.extra_body))
        if taken:
            names = ", ".join(taken)
            raise ConfigurationError(
                [
                    f"LLM_EXTRA_BODY: must not hold {names}, which this program sets. Take it out; the model is"
                    " API_LLM_PROVIDER_MODEL, the cap of an answer LLM_MAX_OUTPUT_TOKENS."
                ]
            )

    @property
    def name(self) -> str:
        return self.endpoint.model

    @property
    def is_standin(self) -> bool:
        return self._is_standin

    @property
    def refused_parameters(self) -> frozenset[str]:
        """Request members this model's server did not take; left out since."""
        return frozenset(self._refused)

    def body(self, prompt: Prompt) -> Body:
        """Exactly what is sent for `prompt`, by what is known now."""
        # A copy, since another thread may be learning.
        refused = self.refused_parameters
        body = self._body(prompt, refused)
        body.update(self._wishes.extra_body)
        for name in refused:
            without(body, name)
        return body

    @property
    @abstractmethod
    def url(self) -> str:
        """Where requests go."""

    @abstractmethod
    def _body(self, prompt: Prompt, refused: Collection[str]) -> Body:
        """The body before LLM_EXTRA_BODY; `refused` holds members to express otherwise where that is possible."""

    @abstractmethod
    def _reader(self) -> Reader: ...

    def _cap(self, prompt: Prompt) -> int:
        """Output tokens asked for."""
        return min(prompt.max_output_tokens, self.info.max_output_tokens)

    def _refusal_of(self, parameter: str, body: Body) -> str:
        """Under which name the refusal of `parameter` is remembered."""
        return parameter

    async def complete(self, prompt: Prompt, *, flow: Flow, last_check: Callable[[], None] = unchecked) -> Answer:
        """See `worker.ports.Model`. Waits between attempts hold no slot of the account."""
        self._check_fit(prompt)
        attempt, first_failure_at = 1, 0.0
        spent = Usage()
        while True:
            body = self.body(prompt)
            try:
                outcome = await self._attempt(prompt, body, flow, last_check)
                spent += outcome.usage
                return self._answer(outcome, spent)
            except ParameterRefused as error:
                self._remember(error, body)
                if self.body(prompt) == body:
                    raise Unprocessable(str(error)) from error
                continue
            except UnknownModel as error:
                raise UnknownModel(f"{error}{await self._on_offer()}") from error
            except ReviewError as error:
                failure = error
            self._check_passes(failure, prompt)
            now_s = self._clock.monotonic()
            first_failure_at = now_s if attempt == 1 else first_failure_at
            verdict = self._decide(
                failure, attempt=attempt, elapsed_s=now_s - first_failure_at, random=self._randomness()
            )
            match verdict:
                case GiveUp():
                    raise failure
                case Retry(wait_s=wait_s):
                    log.warning(
                        "model.retry_scheduled",
                        **self.endpoint.described(),
                        attempt=attempt,
                        wait_s=round(wait_s, 2),
                        error_type=type(failure).__name__,
                        error=str(failure),
                    )
                    await self._clock.sleep(wait_s)
                    attempt += 1

    def _check_fit(self, prompt: Prompt) -> None:
        needed = prompt.input_tokens + self._cap(prompt)
        if needed > self.info.window_tokens:
            raise RequestTooLong(
                f"{self.endpoint.who}: input and answer need {needed} tokens, the window of {self.name} holds"
                f" {self.info.window_tokens}; not sent",
                limit_tokens=self.info.window_tokens,
                requested_tokens=needed,
            )

    def _check_passes(self, failure: ReviewError, prompt: Prompt) -> None:
        """Raise `RequestTooLong` where the limit that was told is below this one request: no wait would help."""
        needed = self._cost(prompt).tokens
        if not isinstance(failure, RateLimited) or failure.limit != "tpm" or needed <= (failure.limit_value or needed):
            return
        raise RequestTooLong(
            f"{self.endpoint.who}: a request of {needed:,} tokens can never pass the account's limit of"
            f" {failure.limit_value:,} a minute; a smaller LLM_MAX_OUTPUT_TOKENS or REVIEW_CHUNK_TOKENS avoids that",
            limit_tokens=failure.limit_value,
            requested_tokens=needed,
        ) from failure

    async def _narrow(self, error: RequestTooLong) -> None:
        """The server's word on its window outranks every other: what is too large for it is not sent again."""
        limit_tokens = error.limit_tokens
        if limit_tokens is None or not LEAST_INPUT_TOKENS <= limit_tokens < self.info.window_tokens:
            return
        known_tokens, self.info = self.info.window_tokens, narrowed(self.info, limit_tokens)
        log.warning(
            "model.window_narrowed",
            **self.endpoint.described(),
            window_tokens=limit_tokens,
            known_tokens=known_tokens,
            error=str(error),
        )
        if self._tell_window is not None:
            await self._tell_window(limit_tokens)

    def _cost(self, prompt: Prompt) -> Cost:
        """The most that one request can take from the account."""
        input_tokens, cap_tokens = prompt.input_tokens, self._cap(prompt)
        prices = self.info.prices
        if prices is None:
            return Cost(input_tokens, cap_tokens)
        worst_usd = prices.cost_usd(input_tokens=input_tokens, cached_tokens=0, output_tokens=cap_tokens)
        return Cost(input_tokens, cap_tokens, worst_usd)

    def _remember(self, error: ParameterRefused, body: Body) -> None:
        name = self._refusal_of(error.parameter, body)
        self._refused.add(name)
        log.warning("model.parameter_dropped", **self.endpoint.described(), parameter=name, error=str(error))

    async def _on_offer(self) -> str:
        try:
            models = await models_offered(self.endpoint, now=self._clock.now())
        except ReviewError:
            # Asked only to say more about an error that is raised anyway.
            return ""
        return f". On offer for this key: {safe_words(', '.join(sorted(models)[:20]))}" if models else ""

    async def _attempt(self, prompt: Prompt, body: Body, flow: Flow, last_check: Callable[[], None]) -> _Outcome:
        """One admitted request. Raises what kept it from being answered."""
        refusal: RateLimited | Overloaded | QuotaUsedUp | NoBalance | None = None
        async with self._throttle.admit(self._cost(prompt), flow=flow) as slot:
            # Waits for nothing, so that the request still leaves in the moment it was admitted in.
            last_check()
            started_s = self._clock.monotonic()
            try:
                reply, broke_off = await self._exchange(body)
            except ParameterRefused:
                await slot.settle(Usage())
                raise
            except RequestTooLong as error:
                # By the server: what the throttle calls too long is so by the account's limits.
                await self._narrow(error)
                raise
            except (RateLimited, Overloaded, QuotaUsedUp, NoBalance) as error:
                # Turned away before any work: nothing was used. The fleet is told once the place is free again.
                await slot.settle(Usage())
                refusal = error
            else:
                usage = reply.usage(prompt, self.info)
                if reply.model == STANDIN_MODEL:
                    # The stand-in is free, whatever the model is called that it plays.
                    self._is_standin = True
                    usage = replace(usage, cost_usd=0.0)
                await slot.settle(usage)
        if refusal is not None:
            if isinstance(refusal, QuotaUsedUp) and refusal.until is None:
                refusal.until = await next_reset(self.endpoint, now=self._clock.now())
            await self._throttle.refused(self._closing(refusal) if isinstance(refusal, NoBalance) else refusal)
            raise refusal
        return _Outcome(reply, usage, self._clock.monotonic() - started_s, broke_off)

    def _closing(self, error: NoBalance) -> QuotaUsedUp:
        """For the whole fleet, since each waiting job would only be refused for itself. A top-up is not announced."""
        error.until = error.until or self._clock.now() + timedelta(seconds=BALANCE_PAUSE_S)
        return QuotaUsedUp(str(error), until=error.until)

    async def _exchange(self, body: Body) -> tuple[Reply, str]:
        """Send and read until the answer is whole. The second part says why it broke off, if it did."""
        reader = self._reader()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._deadlines.total_s
        has_bytes = False
        try:
            async with (
                asyncio.timeout(min(self._deadlines.first_byte_s, self._deadlines.total_s)) as deadline,
                open_client(self.endpoint, timeout_s=None) as client,
                client.stream("POST", self.url, content=encode(body), headers=SEND_JSON) as response,
            ):

                def alive() -> None:
                    nonlocal has_bytes
                    has_bytes = True
                    idle_s = self._deadlines.idle_s
                    if reader.reply.finish:
                        # Only usage and the end mark are missing, and some streams never bring them.
                        idle_s = min(idle_s, self._deadlines.after_finish_s)
                    deadline.reschedule(min(loop.time() + idle_s, ends_at))

                await self._read(response, reader, body, alive)
            broke_off = "" if reader.reply.finish else "the stream ended without finish_reason"
        except TimeoutError:
            broke_off = self._silence(has_bytes, loop.time() >= ends_at, is_finished=bool(reader.reply.finish))
            if not reader.reply.is_whole:
                raise Stalled(f"{self.endpoint.who}: {broke_off}; {PASSES}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            broke_off = f"the connection was lost ({type(error).__name__})"
            if not reader.reply.is_whole:
                if has_bytes:
                    raise Unreachable(
                        f"{self.endpoint.who}: {broke_off} in the middle of an answer; {PASSES}"
                    ) from error
                raise not_reached(error, endpoint=self.endpoint) from error
        except EventTooLong as error:
            raise Unreachable(f"{self.endpoint.who}: {error} is no answer of a model; {PASSES}") from error
        return reader.reply, broke_off

    async def _read(self, response: httpx.Response, reader: Reader, body: Body, alive: Callable[[], None]) -> None:
        """Feed `reader` until the stream is done, ends, complains or grows without end."""
        if response.status_code != 200:
            text = await read_bounded(response, MAX_ERROR_BYTES)
            raise classify(
                response.status_code,
                response.headers,
                text,
                endpoint=self.endpoint,
                now=self._clock.now(),
                sent=droppable(body),
            )
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/html":
            names = self.endpoint.names
            # A gateway says so that it is being repaired, with 200 too: to stop for good would lose what is under way.
            raise Unreachable(
                f"{self.endpoint.who}: a web page came in place of an answer; {PASSES}. If it does not, look at"
                f" {names.base_url}: it is {self.endpoint.root}, and usually ends in /v1"
            )
        if kind == "application/json":
            self._take_whole(await read_bounded(response, MAX_WHOLE_BYTES), reader)
        else:
            events = EventReader()
            async for packet in response.aiter_bytes():
                took = took_last(reader, events.feed(packet))
                alive()
                if took:
                    break
            else:
                took_last(reader, events.finish())
        self._raise_complaint(reader.reply, body)

    def _take_whole(self, text: bytes, reader: Reader) -> None:
        """A server that does not stream answers in one piece."""
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unreachable(f"{self.endpoint.who}: the answer is no JSON; {PASSES}") from error
        if isinstance(value, dict) and value.get("error"):
            reader.reply.complaint = complaint_in(value)
        else:
            reader.take_whole(value)

    def _raise_complaint(self, reply: Reply, body: Body) -> None:
        if reply.complaint is None or reply.is_whole:
            return
        raise classify_complaint(
            status_meant(reply.complaint.type, reply.complaint.code),
            {},
            reply.complaint,
            endpoint=self.endpoint,
            now=self._clock.now(),
            sent=droppable(body),
        )

    def _shown_images(self, prompt: Prompt) -> tuple[Image, ...]:
        """None for a model that takes none, such as a fallback's: it would refuse the whole request."""
        return prompt.images if self.info.takes_images else ()

    def _silence(self, has_bytes: bool, is_total: bool, *, is_finished: bool) -> str:
        if is_finished:
            return "the stream had no end"
        if is_total:
            return f"not finished within {self._deadlines.total_s:g} s"
        if not has_bytes:
            return f"no answer within {self._deadlines.first_byte_s:g} s"
        return f"the stream was silent for {self._deadlines.idle_s:g} s"

    def _answer(self, outcome: _Outcome, spent: Usage) -> Answer:
        """The whole answer, or the error that says what is wrong with it."""
        reply, usage = outcome.reply, outcome.usage
        log.info(
            "model.answered",
            **self.endpoint.described(),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            seconds=round(outcome.seconds, 2),
            finish=reply.finish or outcome.broke_off or "cut",
            **({"answered_by": STANDIN_MODEL} if reply.model == STANDIN_MODEL else {}),
        )
        text, who = reply.content, self.endpoint.who
        if reply.is_too_long:
            length = reply.content_chars + reply.reasoning_chars
            raise AnswerCutOff(
                f"{who}: stopped after {length} characters without an end; it is asked for less where that is possible",
                text=text,
                usage=spent,
            )
        if reply.finish == "filter":
            raise ContentFiltered(f"{who}: content filter; the file is isolated and named as not reviewed")
        if reply.finish == "length":
            raise AnswerCutOff(
                f"{who}: the answer's share was used up{' by thinking' if not text.strip() else ''}; it is asked again"
                " with more, or for less (LLM_MAX_OUTPUT_TOKENS, LLM_THINKING)",
                text=text,
                usage=spent,
            )
        if not text.strip():
            room = "LLM_THINKING=off or a larger LLM_MAX_OUTPUT_TOKENS leaves it more room"
            raise EmptyAnswer(f"{who}: answered without content; {room}")
        if outcome.broke_off and not reply.is_whole:
            raise Unreachable(f"{who}: {outcome.broke_off}; {PASSES}")
        notes = [f"dropped parameter {name}" for name in sorted(self.refused_parameters)]
        if outcome.broke_off:
            notes.append(f"{outcome.broke_off}; the answer was whole")
        model = STANDIN_MODEL if reply.model == STANDIN_MODEL else self.name
        return Answer(text=text, model=model, usage=spent, notes=tuple(notes))


SEND_JSON = {"Content-Type": "application/json", "Accept": "text/event-stream"}


def took_last(reader: Reader, events: Iterable[Event]) -> bool:
    """Hand `events` to `reader` one by one; whether one of them was the last that matters."""
    for event in events:
        reader.take(event)
        if reader.reply.is_done or reader.reply.complaint is not None or reader.reply.is_too_long:
            return True
    return False


def encode(body: Body) -> bytes:
    """The bytes on the wire. What is no character at all becomes a question mark rather than a refused request."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def droppable(body: Body) -> list[str]:
    """Members that a request can do without, nested ones dotted."""
    names: list[str] = []
    for name, value in body.items():
        if name in OURS and name != "max_completion_tokens":
            continue
        names.append(name)
        if isinstance(value, dict):
            names.extend(f"{name}.{inner}" for inner in value)
    return names


def without(body: Body, name: str) -> Body:
    """Take the member `name` (dotted where nested) out of `body`, and what it leaves empty."""
    outer, _, inner = name.partition(".")
    if not inner:
        body.pop(outer, None)
        return body
    value = body.get(outer)
    if isinstance(value, dict) and inner in value:
        rest = {key: item for key, item in value.items() if key != inner}
        if rest:
            body[outer] = rest
        else:
            del body[outer]
    return body


def status_meant(error_type: str, code: str) -> int:
    """The HTTP status that an error inside a stream would have had."""
    if code.isdigit() and 400 <= int(code) < 600:
        return int(code)
    for word, status in (
        ("overloaded", 529),
        ("rate_limit", 429),
        ("quota", 429),
        ("authentication", 401),
        ("api_key", 401),
        ("permission", 403),
        ("access_terminated", 403),
        ("not_found", 404),
        ("invalid_request", 400),
        ("content_filter", 400),
        ("too_large", 413),
    ):
        if word in error_type:
            return status
    return 500
