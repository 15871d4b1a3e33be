"""A model in memory: answers as the stand-in does, or as it is told; held to the contract of the real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from worker.core.errors import RequestTooLong, ReviewError
from worker.core.exchange import Answer, Prompt
from worker.core.usage import Usage
from worker.ports import Flow, unchecked
from worker.standin.brain import answer as standin_answer

Brain = Callable[[Prompt], str]


class FakeModel:
    """Implements `worker.ports.Model`. `asked` holds every prompt that got past the window."""

    def __init__(
        self,
        *,
        name: str = "kimi-fake",
        window_tokens: int = 262_144,
        brain: Brain | None = None,
        is_standin: bool = False,
    ) -> None:
        self._name = name
        self._window_tokens = window_tokens
        self._brain = brain or (lambda prompt: standin_answer(prompt.user))
        self._is_standin = is_standin
        self._script: deque[ReviewError | str] = deque()
        self.asked: list[tuple[Prompt, Flow]] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_standin(self) -> bool:
        return self._is_standin

    def script(self, *outcomes: ReviewError | str) -> None:
        """What the next calls raise or answer, one each."""
        self._script.extend(outcomes)

    async def complete(self, prompt: Prompt, *, flow: Flow, last_check: Callable[[], None] = unchecked) -> Answer:
        needed = prompt.input_tokens + prompt.max_output_tokens
        if needed > self._window_tokens:
            raise RequestTooLong(
                f"{self.name}: {needed} tokens", limit_tokens=self._window_tokens, requested_tokens=needed
            )
        last_check()
        self.asked.append((prompt, flow))
        outcome = self._script.popleft() if self._script else self._brain(prompt)
        if isinstance(outcome, ReviewError):
            raise outcome
        usage = Usage(requests=1, input_tokens=prompt.input_tokens, output_tokens=len(outcome) // 4 + 1, cost_usd=0.0)
        return Answer(text=outcome, model=self.name, usage=usage)
