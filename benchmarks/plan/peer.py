"""PR-Agent's side of the comparison, run in a virtual environment of its own; prints one JSON line.

Its own functions on the same bytes, with the same token counter as ours (quicktok's o200k) in place
of its own, and a window of 262,144 tokens instead of its default clamp of 32,000.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import quicktok
from meter import Meter
from pr_agent.algo import pr_processing, token_handler
from pr_agent.config_loader import get_settings
from pr_agent.git_providers.diff_parsing import parse_unified_diff
from pr_agent.log import get_logger

WINDOW = 262_144
CALLS = 3


class _Encoder:
    """What PR-Agent asks of tiktoken: `encode`, of which it takes the length alone."""

    def __init__(self) -> None:
        self._count = quicktok.get_encoding("o200k_base").count

    def encode(self, text: str, **_: Any) -> range:
        return range(self._count(text.encode("utf-8", "replace")))


class _Provider:
    """A forge that hands out files which were parsed before."""

    def __init__(self, files: list[Any]) -> None:
        self._files = files

    def get_diff_files(self) -> list[Any]:
        return self._files

    def get_languages(self) -> dict[str, int]:
        return {"Python": 100}

    def get_filtered_diff_file_names(self) -> list[str]:
        return []


def main(diff_file: str) -> None:
    get_logger().remove()
    settings = get_settings()
    settings.set("config.model", "kimi-k2.6")
    settings.set("config.max_model_tokens", WINDOW)
    settings.set("config.custom_model_max_tokens", WINDOW)
    encoder = _Encoder()
    token_handler.TokenEncoder._create_encoder = staticmethod(lambda model: encoder)
    # It would ask the provider's API for exact counts; offline that costs it a failed call per count.
    token_handler.TokenHandler.count_tokens = lambda self, patch, force_accurate=False: len(encoder.encode(patch))
    meter = Meter()
    text = Path(diff_file).read_bytes().decode("utf-8", "replace")
    meter.lap("read")
    files = parse_unified_diff(text)
    meter.lap("parse")
    provider = _Provider(files)
    handler = token_handler.TokenHandler(SimpleNamespace(), {}, "", "", model="kimi-k2.6")
    meter.lap("handler")
    one, left_over_one = pr_processing.get_pr_diff(provider, handler, "kimi-k2.6", return_remaining_files=True)
    meter.lap("one_prompt")
    several = pr_processing.get_pr_multi_diffs(
        provider, handler, "kimi-k2.6", max_calls=CALLS, add_line_numbers=False, return_coverage=True
    )
    meter.lap("three_prompts")
    print(
        json.dumps(
            {
                **meter.figures(),
                "one": {**_shown([one]), "named": sorted(set(left_over_one))},
                "three": {
                    **_shown(several.chunks),
                    "named": sorted({*several.remaining_files_list, *several.partial_files_list}),
                },
            }
        )
    )


def _shown(prompts: list[str]) -> dict[str, int]:
    """Added and deleted lines that stand in `prompts`."""
    rows = [row for prompt in prompts for row in prompt.split("\n")]
    return {
        "added": sum(row.startswith("+") and not row.startswith("+++ ") for row in rows),
        "removed": sum(row.startswith("-") and not row.startswith("--- ") for row in rows),
        "prompts": len(prompts),
    }


if __name__ == "__main__":
    main(sys.argv[1])
