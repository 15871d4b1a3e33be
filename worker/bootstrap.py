"""Settings → real adapters: the only wiring.

An `Installation` is made once per process and holds what its threads share. Each review, and each door that
serves HTTP, runs in an event loop of its own and enters `services()` there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import redis.asyncio
from celery import Celery
from pydantic import SecretStr

from worker.checkout import MirrorCheckout
from worker.clock import SystemClock
from worker.core import marker
from worker.core.comments import Voice
from worker.core.delivery import NOT_ALLOWED, Delivery, Ignored, allows, is_pattern
from worker.core.delivery import Policy as DeliveryPolicy
from worker.core.errors import ConfigurationError
from worker.core.exchange import STANDIN_MODEL, Kind, Prompt
from worker.core.job import Accepted, Intent, Job
from worker.core.limits import HardStops, Limits, account_of
from worker.core.masking import mask
from worker.core.model_info import EXACT_FACTOR, ModelInfo, WindowNote, budget_for
from worker.core.planning.rules import Scope
from worker.core.redaction import Redactor
from worker.forges import FORGES
from worker.forges.access import Access
from worker.ports import Clock, Forge, Model, Throttle
from worker.providers import catalogue, tokens
from worker.providers.check import choose_model
from worker.providers.connect import connect as connect_model
from worker.providers.endpoint import PRIMARY, SECOND, Endpoint
from worker.providers.fallback import Breaker, FallbackModel
from worker.providers.remote import Deadlines, RemoteModel, Wishes, encode
from worker.providers.vocabulary import mounted_counter
from worker.providers.windows import Windows, WindowWishes, informed
from worker.review.accept import accept, accept_delivery
from worker.review.conduct import Conductor
from worker.review.conduct import Policy as ReviewPolicy
from worker.review.examine import Examiner
from worker.review.lease import Lease
from worker.review.planning import Planning
from worker.review.prompts import words
from worker.review.publish import Publishing, post_note, publish_job
from worker.review.reconcile import Reconciler
from worker.settings import Settings
from worker.storage.connection import connect as connect_redis
from worker.storage.factors import TokenFactors
from worker.storage.jobs import RedisJobs
from worker.storage.queue import CeleryWake, celery_app
from worker.storage.throttle import RedisThrottle
from worker.storage.windows import RedisWindowNotes

REMEMBERED = 1_000
"""Jobs that are looked through for repositories that sent us changes."""


class SecondProvider(NamedTuple):
    """What the fleet keeps of the account that takes over, where one is configured."""

    windows: Windows
    throttle: RedisThrottle


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that works within one event loop. Implements `worker.process.Services`."""

    installation: Installation
    clock: Clock
    redis: redis.asyncio.Redis
    jobs: RedisJobs
    wake: CeleryWake
    throttle: RedisThrottle
    windows: Windows
    second: SecondProvider | None
    forges: Mapping[str, Forge]
    reconciler: Reconciler

    async def review(self, lease: Lease) -> None:
        """Review a claimed job and store its report."""
        name = lease.job.ref.forge
        conductor = Conductor(
            jobs=self.jobs,
            wake=self.wake,
            forge=self.forge(name),
            checkout=self.installation.checkout,
            examiner=await self.examiner(),
            freshness=self._publishing(name).freshness(self.forge(name)),
            policy=self.installation.review_policy,
        )
        await conductor.conduct(lease)

    async def publish(self, lease: Lease) -> None:
        """Post the stored report of a claimed job."""
        name = lease.job.ref.forge
        await publish_job(lease, forge=self.forge(name), publishing=self._publishing(name))

    async def tell(self, job: Job) -> None:
        """Say on the change why it got no review."""
        name = job.ref.forge
        await post_note(job, job.reason, forge=self.forge(name), publishing=self._publishing(name))

    async def accept(self, delivery: Delivery) -> Accepted | Ignored:
        """Make a job of a verified delivery, or say why not."""
        settings = self.installation.settings
        return await accept_delivery(
            delivery,
            policy=self.installation.delivery_policy,
            jobs=self.jobs,
            wake=self.wake,
            settings_hash=self.installation.result_hash,
            settle_s=settings.review_settle_s,
        )

    async def request(self, intent: Intent) -> Accepted | Ignored:
        """The same for a caller who may name any change of a forge that is configured."""
        settings = self.installation.settings
        if not allows(intent.ref.repository, settings.github_repositories):
            return Ignored(NOT_ALLOWED)
        complete = replace(intent, settings_hash=self.installation.result_hash)
        return await accept(complete, jobs=self.jobs, wake=self.wake)

    async def reconcile(self) -> None:
        """Accept open changes that nobody reviewed: one round over the repositories that are ours to review."""
        for forge in self.forges.values():
            repositories = await self._repositories(forge.name)
            if repositories is not None:
                await self.reconciler.reconcile(forge, repositories)

    async def _repositories(self, forge: str) -> Sequence[str] | None:
        """Whose open changes are asked for; empty: those within reach that the patterns admit; None: nobody's.

        Where the settings admit everything, a token may reach hundreds of repositories that nobody meant; then it is
        those that sent us a change before.
        """
        globs = self.installation.settings.github_repositories
        if not any(map(is_pattern, globs)):
            return globs
        if not any(is_pattern(glob.partition("/")[0]) for glob in globs):
            return ()
        known = {job.ref.repository for job in await self.jobs.list(limit=REMEMBERED) if job.ref.forge == forge}
        return sorted(known) or None

    def forge(self, name: str) -> Forge:
        """Raises `ConfigurationError` when the job's forge is not configured in this process."""
        if name not in self.forges:
            raise ConfigurationError([f"{name}: this job needs the forge {name}, which is not configured here."])
        return self.forges[name]

    async def examiner(self) -> Examiner:
        """What a review is planned and asked with, by what is known of the model now. Raises `Unreachable`."""
        info = await self.windows.model()
        return Examiner(
            model=await self._model(info),
            planning=planning_for(self.installation.settings, info),
            lessons=TokenFactors(self.redis),
            verdict_words=words(Kind.VERDICTS) if self.installation.settings.review_verify else None,
            summary_words=words(Kind.SUMMARY),
        )

    async def _model(self, info: ModelInfo) -> Model:
        installation = self.installation
        first = installation.model(self.windows, info, self.throttle)
        if self.second is None:
            return first
        windows, throttle = self.second
        # Nothing is planned for it, so it is not asked: what it refuses is split.
        known = informed(catalogue.lookup(windows.endpoint.model), await windows.remembered(), WindowWishes())
        second = installation.model(windows, known, throttle)
        return FallbackModel(first, second, clock=self.clock, breaker=installation.breaker)

    def _publishing(self, forge: str) -> Publishing:
        settings = self.installation.settings
        return Publishing(
            jobs=self.jobs,
            clock=self.clock,
            marker_key=self.installation.accesses[forge].marker_key,
            voice=self.installation.voice,
            settle_s=settings.review_settle_s,
            settings_hash=self.installation.result_hash,
            reviews_drafts=settings.review_drafts,
        )


@dataclass
class Installation:
    """One process's share of an installation. `redis_url` is where its Redis listens, embedded or not."""

    settings: Settings
    redis_url: str
    clock: Clock = field(default_factory=SystemClock)
    refused: dict[str, set[str]] = field(default_factory=dict)
    """Model → request members that its server would not take; remembered for the process."""
    breaker: Breaker = field(default_factory=Breaker)

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Services]:
        """Open connections for the running event loop and close them again."""
        async with AsyncExitStack() as opened:
            client = connect_redis(self.redis_url)
            opened.push_async_callback(client.aclose)
            throttle = self._throttle(client, self.endpoint)
            opened.push_async_callback(throttle.aclose)
            notes = RedisWindowNotes(client)
            second = None
            if (endpoint := self.second_endpoint) is not None:
                spare = self._throttle(client, endpoint)
                opened.push_async_callback(spare.aclose)
                second = SecondProvider(Windows(endpoint, WindowWishes(), notes, self.clock), spare)
            forges = {
                name: await opened.enter_async_context(FORGES[name].open(access, self.clock))
                for name, access in self.accesses.items()
            }
            jobs = RedisJobs(client, lease_s=self.settings.job_lease_s)
            wake = CeleryWake(self.celery, client)
            yield Services(
                installation=self,
                clock=self.clock,
                redis=client,
                jobs=jobs,
                wake=wake,
                throttle=throttle,
                windows=Windows(self.endpoint, window_wishes(self.settings), notes, self.clock),
                second=second,
                forges=forges,
                reconciler=Reconciler(
                    jobs=jobs,
                    wake=wake,
                    clock=self.clock,
                    policy=self.delivery_policy,
                    settings_hash=self.result_hash,
                ),
            )

    @cached_property
    def celery(self) -> Celery:
        return celery_app(
            self.redis_url,
            visibility_timeout_s=self.settings.queue_visibility_timeout_s,
            threads=self.settings.worker_threads,
        )

    @cached_property
    def result_hash(self) -> str:
        """Part of each job's key; made once, since every delivery needs it."""
        return self.settings.result_hash

    @cached_property
    def endpoint(self) -> Endpoint:
        return endpoint_of(self.settings)

    @cached_property
    def second_endpoint(self) -> Endpoint | None:
        return second_endpoint_of(self.settings)

    @cached_property
    def model_info(self) -> ModelInfo:
        """What is known of the model without asking anybody: the catalogue and the settings."""
        return informed(catalogue.lookup(self.endpoint.model), WindowNote(), window_wishes(self.settings))

    @cached_property
    def checkout(self) -> MirrorCheckout:
        return MirrorCheckout(self.settings.kimi_review_home / "mirrors", egress=self.settings.egress)

    @cached_property
    def accesses(self) -> Mapping[str, Access]:
        """What each configured forge's client needs, by the forge's name."""
        settings = self.settings
        if not settings.has_github:
            return {}
        token = _plain(settings.github_token) or None
        app_key = _plain(settings.github_app_private_key) or None
        return {
            "github": Access(
                url=settings.github_url,
                api_url=settings.github_api_url,
                # The webhook's secret changes least; a marker that is no longer known costs a review at most.
                marker_key=marker.key_from(_plain(settings.github_webhook_secret) or token or app_key or ""),
                token=token,
                app_id=str(settings.github_app_id) if settings.github_app_id is not None else None,
                app_private_key=app_key,
                egress=settings.egress,
            )
        }

    @property
    def delivery_policy(self) -> DeliveryPolicy:
        settings = self.settings
        return DeliveryPolicy(
            repositories=settings.github_repositories, drafts=settings.review_drafts, forks=settings.review_forks
        )

    @property
    def review_policy(self) -> ReviewPolicy:
        return ReviewPolicy(reviews_drafts=self.settings.review_drafts, reviews_forks=self.settings.review_forks)

    @property
    def voice(self) -> Voice:
        settings = self.settings
        return Voice(
            max_comments=settings.review_max_comments,
            max_comments_per_file=settings.review_max_comments_per_file,
            min_severity=settings.review_min_severity,
            mask=self._masked,
        )

    def _masked(self, text: str) -> str:
        """Without our own secrets in any spelling, and without what has a well-known secret's shape."""
        return self._redactor(mask(text))

    @cached_property
    def _redactor(self) -> Redactor:
        return Redactor(self.settings.secrets())

    def request_body(self, prompt: Prompt) -> bytes:
        """`prompt` exactly as it would be sent to the provider; nothing is sent, and no Redis is asked."""
        client = connect_redis(self.redis_url)
        windows = Windows(self.endpoint, window_wishes(self.settings), RedisWindowNotes(client), self.clock)
        return encode(self.model(windows, self.model_info, self._throttle(client, self.endpoint)).body(prompt))

    def _throttle(self, client: redis.asyncio.Redis, endpoint: Endpoint) -> RedisThrottle:
        settings = self.settings
        return RedisThrottle(
            client,
            account=account_of(endpoint.base_url, endpoint.api_key),
            limits=limits_of(settings, endpoint),
            stops=HardStops(month_usd=settings.llm_monthly_budget_usd, review_usd=settings.llm_review_budget_usd),
        )

    def model(self, windows: Windows, info: ModelInfo, throttle: Throttle) -> RemoteModel:
        """The model at an endpoint, by what is known of it."""
        settings, endpoint = self.settings, windows.endpoint
        return connect_model(
            endpoint,
            info=info,
            throttle=throttle,
            clock=self.clock,
            wishes=request_wishes(settings),
            deadlines=Deadlines(
                first_byte_s=settings.llm_first_byte_timeout_s,
                idle_s=settings.llm_idle_timeout_s,
                total_s=settings.llm_total_timeout_s,
            ),
            is_standin=endpoint.model == STANDIN_MODEL,
            refused=self.refused.setdefault(endpoint.model, set()),
            tell_window=windows.refused,
        )


def endpoint_of(settings: Settings) -> Endpoint:
    """The one provider of Fixed Mode."""
    return Endpoint(
        base_url=settings.api_openai_force_base_url,
        api_key=_plain(settings.api_open_ai_api_key),
        model=settings.api_llm_provider_model,
        names=PRIMARY,
        egress=settings.egress,
    )


def second_endpoint_of(settings: Settings) -> Endpoint | None:
    """The provider that takes over, where one is configured."""
    if settings.fallback_llm_provider_model is None or settings.fallback_openai_base_url is None:
        return None
    return Endpoint(
        base_url=settings.fallback_openai_base_url,
        api_key=_plain(settings.fallback_api_key),
        model=settings.fallback_llm_provider_model,
        names=SECOND,
        egress=settings.egress,
    )


def request_wishes(settings: Settings) -> Wishes:
    """What the settings want of every request."""
    return Wishes(thinking=settings.llm_thinking, extra_body=settings.llm_extra_body)


def window_wishes(settings: Settings) -> WindowWishes:
    """What the settings say of the model's window."""
    return WindowWishes(settings.llm_context_tokens, settings.llm_max_output_tokens)


def limits_of(settings: Settings, endpoint: Endpoint) -> Limits:
    """What is known of the account of `endpoint`. The settings tell of the first provider's, whatever model uses it."""
    plan = endpoint.provider.plan_concurrency
    first = endpoint_of(settings)
    if account_of(endpoint.base_url, endpoint.api_key) != account_of(first.base_url, first.api_key):
        return Limits(concurrency=plan, concurrency_source=f"the plan of {endpoint.provider.name}")
    told = settings.llm_max_concurrent_requests
    return Limits(
        concurrency=told or plan,
        concurrency_source="settings" if told else f"the plan of {endpoint.provider.name}",
        rpm=settings.llm_rpm,
        tpm=settings.llm_tpm,
        tpd=settings.llm_tpd,
    )


def planning_for(settings: Settings, info: ModelInfo) -> Planning:
    """What planning needs; no network, no Redis. Raises `ConfigurationError` for a vocabulary that is none."""
    language = settings.review_language
    vocabulary = settings.llm_tokenizer_file
    return Planning(
        budget=budget_for(
            info,
            chunk_tokens=settings.review_chunk_tokens,
            output_tokens=settings.llm_max_output_tokens,
            token_factor=None if vocabulary is None else EXACT_FACTOR,
        ),
        words=words(Kind.FINDINGS),
        count=tokens.o200k_counter() if vocabulary is None else mounted_counter(vocabulary),
        has_own_vocabulary=vocabulary is not None,
        scope=Scope(include=settings.review_include, exclude=settings.review_exclude),
        guidance="" if language == "English" else f"Write title and body of every finding in {language}.",
        thinks=settings.llm_thinking != "off",
        thinks_from_lines=settings.llm_thinking_min_lines,
        evidence_ratio=settings.review_evidence,
        shows_images=settings.review_images and info.takes_images,
        max_requests=settings.review_max_requests,
    )


async def with_model_chosen(settings: Settings, *, clock: Clock) -> Settings:
    """`API_LLM_PROVIDER_MODEL=auto` → the best model that the key may use and this program knows.

    Raises as `choose_model` does.
    """
    if settings.api_llm_provider_model != "auto":
        return settings
    model = await choose_model(endpoint_of(settings), clock=clock)
    return settings.model_copy(update={"api_llm_provider_model": model})


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
