"""What is shipped besides the code: the compose file, the image, the examples."""

from __future__ import annotations

import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from ruamel.yaml import YAML

from tests.fakes.loopback import Loopback, Quiet
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("api", "worker", "upkeep")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(COMPOSE.read_text(encoding="utf-8"))
    return dict(loaded["services"])


def test_the_compose_file_keeps_to_its_specification() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_four_services_are_there(services: dict[str, Any]) -> None:
    assert set(services) == {*OURS, "redis"}
    assert {name: services[name]["command"] for name in OURS} == {name: [name] for name in OURS}


@pytest.mark.parametrize("name", [*OURS, "redis"])
def test_every_service_is_locked_in(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == "60s"
    assert not service["user"].startswith(("0", "root"))
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["healthcheck"]["test"]
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


def test_only_the_api_is_published_and_only_to_this_machine(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if service.get("ports")] == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in services["api"]["ports"])
    assert services["redis"]["networks"] == ["store"]


def test_redis_keeps_what_it_confirmed_and_has_a_password_without_a_default(services: dict[str, Any]) -> None:
    script = services["redis"]["command"][-1]
    for line in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction", "requirepass"):
        assert line in script
    for name in (*OURS, "redis"):
        assert re.match(r"\$\{REDIS_PASSWORD:\?", services[name]["environment"]["REDIS_PASSWORD"])


def test_no_service_of_ours_starts_before_redis_is_healthy(services: dict[str, Any]) -> None:
    for name in OURS:
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_the_api_s_health_is_not_asked_for_by_a_proxy_of_the_environment(services: dict[str, Any]) -> None:
    _, _, option, code = services["api"]["healthcheck"]["test"]
    healthy = Loopback(_Healthy, None)
    healthy.start()
    try:
        done = subprocess.run(
            [sys.executable, option, code.replace("http://127.0.0.1:8000", healthy.address)],
            env={"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        healthy.stop()
    assert done.returncode == 0, done.stderr


class _Healthy(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


def test_every_variable_that_the_compose_file_uses_is_a_setting(services: dict[str, Any]) -> None:
    known = {field.upper() for field in Settings.model_fields}
    for name in OURS:
        assert set(services[name]["environment"]) <= known
        assert services[name]["env_file"] == [".env"]
    interpolated = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE.read_text(encoding="utf-8")))
    assert interpolated <= set(dotenv_values(ROOT / ".env.example"))


def test_the_image_runs_as_a_user_of_its_own_from_locked_requirements() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "review"
    assert "--require-hashes" in text
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[ignored.index("*") + 1 :][0].startswith("!")
    assert "!.env" not in ignored


def test_every_locked_requirement_has_a_hash_and_no_address() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
        entries = re.split(r"\n(?=[a-zA-Z0-9])", text.strip())
        assert len(entries) > 20
        assert all("--hash=sha256:" in entry for entry in entries)
