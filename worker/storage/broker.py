"""The connection to the broker: a message is looked at before Celery sees it, and written without kombu's producer.

kombu's Redis transport takes a message off its list and then reads it. One that is not of its form raises in the
middle of Celery's loop and ends the worker, and the message is gone: any `LPUSH` of a stranger does it.
"""

from __future__ import annotations

import json
import uuid
from base64 import b64decode, b64encode
from typing import Any

import redis
from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.storage.address import Address, Kind
from worker.storage.connection import sentinel_options
from worker.storage.faults import in_our_words
from worker.storage.foreign import put_aside
from worker.storage.health import try_writes

PLAIN_HEADERS: dict[str, type] = {
    "lang": str,
    "task": str,
    "id": str,
    "root_id": str,
    "argsrepr": str,
    "kwargsrepr": str,
    "origin": str,
    "retries": int,
    "ignore_result": bool,
    "replaced_task_nesting": int,
    "redelivered": bool,
}
EMPTY_HEADERS: dict[str, object] = {"timelimit": [None, None], "stamps": {}}
"""What this program's messages say in their headers, the last one added by kombu. There is no time, limit, chord or
compression: waiting is a field of the job."""

TAKE = "BRPOP"
"""The command whose answer is the name of a list and the message that was taken off it."""


class _Client(redis.Redis):
    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """Answers None, as when nothing waits, for a message that kombu could not read."""
        reply = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name != TAKE or not reply:
            return reply
        message = reply[1]
        reason = fault_of(message)
        if not reason:
            return reply
        put_aside(self, task=name_in(message), reason=reason, size=len(message))
        return None


class _Guarded:
    """What both kinds of channel do beyond kombu's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # A server that answers and takes no writes would be connected to, and lost with the first message, without end.
        try:
            with self.conn_or_acquire() as client:  # type: ignore[attr-defined]
                try_writes(client)
        except redis.RedisError:
            self.close()  # type: ignore[attr-defined]
            raise

    def _get_client(self) -> type[redis.Redis]:
        return _Client


class _Channel(_Guarded, kombu_redis.Channel):
    pass


class _Transport(kombu_redis.Transport):
    Channel = _Channel


class _SentinelChannel(_Guarded, kombu_redis.SentinelChannel):
    pass


class _SentinelTransport(kombu_redis.SentinelTransport):
    Channel = _SentinelChannel


class _Connection(Connection):
    def get_transport_cls(self) -> type:
        """Whatever the URL's spelling, it is a Redis: settings let no other through."""
        return _SentinelTransport if self.transport_cls == "sentinel" else _Transport

    def _establish_connection(self) -> Any:
        """Celery logs what this raises, and tries again."""
        try:
            return super()._establish_connection()  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            ours = in_our_words(error)
            if ours is None:
                raise
            raise redis.ConnectionError(str(ours)) from error


class Amqp(AMQP):  # type: ignore[misc]
    """For `Celery(amqp=…)`: the application's part that makes its connections."""

    Connection = _Connection


def sentinel_transport_options(address: Address) -> dict[str, object]:
    """What kombu must be told beside its URL; empty where no Sentinels are asked."""
    if address.kind is not Kind.SENTINEL:
        return {}
    asking = sentinel_options(address) | {"retry": Retry(NoBackoff(), 0)}
    return {"master_name": address.master_name, "sentinel_kwargs": asking}


def fault_of(message: bytes | str) -> str:
    """Why neither kombu nor Celery could read `message`, in words; empty when they can."""
    match _read(message):
        case None:
            return "not JSON"
        case {
            "body": str() as body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": str(), "id": str()} as headers,
            "properties": {
                "delivery_tag": str(),
                "delivery_info": {"exchange": str(), "routing_key": str()},
                "body_encoding": "base64",
            },
        }:
            return _fault_within(body, headers)
        case _:
            return "no Celery message"


def name_in(message: bytes | str) -> str:
    """The task that a message names, empty when it names none."""
    match _read(message):
        case {"headers": {"task": str() as name}}:
            return name
        case _:
            return ""


def _read(message: bytes | str) -> object:
    """As kombu reads it; None for what is no JSON."""
    try:
        return loads(bytes_to_str(message))  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001 - kombu revives types on a stranger's word, and those raise what they like
        return None


def _fault_within(body: str, headers: dict[str, Any]) -> str:
    for name, value in headers.items():
        is_unset = value is None or value == EMPTY_HEADERS.get(name)
        if not is_unset and not isinstance(value, PLAIN_HEADERS.get(name, ())):
            return "has a header that is not ours"
    try:
        inner = json.loads(b64decode(body, validate=True))
    except (ValueError, RecursionError):
        return "its body is not JSON"
    match inner:
        case [list(), {**keywords}, {**parts}] if not keywords and not any(parts.values()):
            return ""
        case _:
            return "its body is no call of a task"


def message_for(app: Celery, task: str, argument: str, *, queue: str, priority: int) -> bytes:
    """The message by which Celery calls `task` with one argument, as kombu's Redis transport keeps it in a list."""
    made = app.amqp.as_task_v2(str(uuid.uuid4()), task, (argument,), {}, ignore_result=True)
    envelope = {
        "body": b64encode(json.dumps(made.body).encode()).decode("ascii"),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": made.headers,
        "properties": {
            **made.properties,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(envelope).encode()
