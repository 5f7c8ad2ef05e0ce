"""AsyncAPI of the topics: a channel for each stream and one for the dead letters.

The channels come from the routing table, their Kafka bindings from the topics that the settings ask for, the message
bodies from the Avro schemas, and the headers from records that the connector's own steps have made.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from connector.kafka.topics import TopicSpec, desired_topics, routes_of
from connector.message.encoding import CONTENT_TYPE, MAGIC, REGISTRY_MAGIC
from connector.message.headers import REQUEST_ID
from connector.message.routes import (
    ALL_ENVIRONMENTS,
    DEAD_LETTERS,
    ENVIRONMENT,
    SOURCE,
    STREAMS,
    Route,
    Routes,
    allowed_environments,
)
from connector.message.schemas import INSTANCE_EVENT, load
from connector.settings import Settings
from tools.descriptions import samples
from tools.descriptions.notation import Document, prose

AVRO_FORMAT: Final = "application/vnd.apache.avro;version=1.9.0"
"""How AsyncAPI names a body that an Avro schema describes."""

EVERY_STREAM: Final = Settings.model_validate({"streams": list(STREAMS)})
"""The default settings, with the streams that are off by default switched on."""

DELETED: Final = "InstanceDeleted"
DEAD_LETTER: Final = "DeadLetter"

_BINDING: Final = {"bindingVersion": "0.5.0"}
_LISTS: Final = frozenset({"cleanup.policy"})
_PARAMETERS: Final = {SOURCE: "source", ENVIRONMENT: "envType"}


def document(settings: Settings = EVERY_STREAM) -> Document:
    """AsyncAPI 3.0 of the topics that a connector with these settings writes, seen from the connector."""
    routes = _routes(settings)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "WeDa Kafka connector: topics",
            "version": version("weda-kafka-connector"),
            "description": _introduction(settings),
            "license": {"name": "Apache License 2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"kafka": _SERVER},
        "channels": _channels(settings, routes),
        "operations": {
            _operation_name(name): _operation(name, messages) for name, messages in _messages_of(routes).items()
        },
        "components": {"messages": _messages(routes), "schemas": {"RecordHeaders": _record_headers()}},
    }


def _introduction(settings: Settings) -> str:
    prefix = settings.topics.prefix
    on = ", ".join(f"`{name}`" for name in Settings().streams)
    return prose(_INTRODUCTION.format(prefix=prefix, on=on, all=ALL_ENVIRONMENTS))


def _routes(settings: Settings) -> Routes:
    """The routing table with the placeholders standing for themselves: each topic is a channel's address."""
    return Routes(settings.streams, settings.topics.prefix, {SOURCE: (ENVIRONMENT,)})


def _channels(settings: Settings, routes: Routes) -> Document:
    *specs, letters = _specs(settings)
    channels = {
        route.stream.name: _channel(settings, route.topic, spec, _STREAMS[route.stream.name], _names(route))
        | {"x-registry-subject": route.subject}
        for route, spec in zip(routes.all, specs, strict=True)
    }
    topic = routes.dead_letter_topic(SOURCE)
    return {**channels, DEAD_LETTERS: _channel(settings, topic, letters, _STREAMS[DEAD_LETTERS], [DEAD_LETTER])}


def _specs(settings: Settings) -> Iterable[TopicSpec]:
    """What the settings ask of one topic of each stream, then of one of dead letters; those of a stream are alike."""
    specs = desired_topics(settings)
    found = {route.stream.name: spec for route, spec in zip(routes_of(settings).all, specs, strict=False)}
    return (*found.values(), specs[-1])


def _channel(settings: Settings, address: str, spec: TopicSpec, description: str, messages: Iterable[str]) -> Document:
    return {
        "address": address,
        "description": description,
        "servers": [{"$ref": "#/servers/kafka"}],
        "parameters": {name: _parameter(settings, name) for mark, name in _PARAMETERS.items() if mark in address},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": _topic_binding(address, spec)},
    }


def _topic_binding(address: str, spec: TopicSpec) -> Document:
    """The topic at its creation; its name only where there is but one."""
    binding: Document = {} if any(mark in address for mark in _PARAMETERS) else {"topic": address}
    binding["partitions"] = spec.partitions
    if spec.replication_factor is not None:
        binding["replicas"] = spec.replication_factor
    binding["topicConfiguration"] = {name: _setting(name, value) for name, value in spec.config.items()}
    return binding | _BINDING


def _setting(name: str, value: str) -> Any:
    if name in _LISTS:
        return value.split(",")
    return int(value) if value.lstrip("-").isdigit() else value


def _parameter(settings: Settings, name: str) -> Document:
    if name == "source":
        return {"description": "A source's name (`WEDA_SOURCES`).", "enum": sorted(settings.sources)}
    allowed = {one for each in settings.sources.values() for one in allowed_environments(ENVIRONMENT, each.env_types)}
    return {"description": "An environment that the source allows, as in the message.", "enum": sorted(allowed)}


def _names(route: Route) -> list[str]:
    """The messages of a stream: its record, and a tombstone where the last record of a key is what counts."""
    return [_short(route.schema.name), *([DELETED] if route.stream.is_state else [])]


def _short(record_type: str) -> str:
    return record_type.rpartition(".")[2]


def _messages_of(routes: Routes) -> dict[str, list[str]]:
    return {**{route.stream.name: _names(route) for route in routes.all}, DEAD_LETTERS: [DEAD_LETTER]}


def _operation_name(channel: str) -> str:
    return "publish" + "".join(part.title() for part in channel.split("-"))


def _operation(channel: str, messages: Iterable[str]) -> Document:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": f"The connector publishes to the stream {channel}.",
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


def _messages(routes: Routes) -> Document:
    found = {_short(route.schema.name): _record(route.schema.name) for route in routes.all}
    if any(route.stream.is_state for route in routes.all):
        found[DELETED] = _tombstone()
    return {**found, DEAD_LETTER: _dead_letter(routes.dead_letter_topic(SOURCE))}


def _record(record_type: str) -> Document:
    schema, sample = load(record_type), samples.record_of(record_type)
    definition = json.loads(schema.text)
    return {
        "name": record_type,
        "title": _short(record_type),
        "summary": definition["doc"],
        "contentType": CONTENT_TYPE,
        "headers": {"$ref": "#/components/schemas/RecordHeaders"},
        "payload": {"schemaFormat": AVRO_FORMAT, "schema": definition},
        "bindings": {"kafka": {"key": _KEY, **_BINDING}},
        "examples": [{"name": "decoded", "headers": dict(sample.headers), "payload": dict(sample.value)}],
        "x-encodings": [
            {
                "name": "Avro single-object encoding",
                "when": "`WEDA_REGISTRY__URL` is not set: the default",
                "startsWith": (MAGIC + schema.fingerprint).hex(" ").upper(),
                "then": "the record in Avro's binary encoding",
                "schema": "by its fingerprint, CRC-64-AVRO of the Parsing Canonical Form, little-endian",
            },
            {
                "name": "Confluent framing",
                "when": "`WEDA_REGISTRY__URL` is set",
                "startsWith": f"{REGISTRY_MAGIC.hex().upper()}, then the schema's id in 4 bytes, big-endian",
                "then": "the record in Avro's binary encoding",
                "schema": "by its id; the registry has it under the channel's `x-registry-subject`",
            },
        ],
    }


def _tombstone() -> Document:
    return {
        "name": DELETED,
        "title": DELETED,
        "summary": "The instance was deleted (action 18, or instanceStatus 5): its last state is withdrawn by a null "
        "value, which compaction keeps for a while and then removes too.",
        "contentType": CONTENT_TYPE,
        "headers": {"$ref": "#/components/schemas/RecordHeaders"},
        "payload": {"type": "null"},
        "bindings": {"kafka": {"key": _KEY, **_BINDING}},
        "examples": [{"name": "deleted", "headers": dict(samples.record_of(INSTANCE_EVENT).headers), "payload": None}],
    }


def _dead_letter(topic: str) -> Document:
    headers = samples.dead_letter_headers(topic)
    return {
        "name": DEAD_LETTER,
        "title": DEAD_LETTER,
        "summary": "A request that could not become a record: its bytes as received, whatever they are; of a GET the "
        "query string. The reason is in the Kafka headers.",
        "contentType": "application/octet-stream",
        "headers": _headers(headers, _LETTER_HEADERS),
        "payload": {"type": "string", "format": "binary"},
        "bindings": {"kafka": {"key": _LETTER_KEY, **_BINDING}},
        "examples": [{"name": "noInstance", "headers": headers, "payload": samples.UNNAMED.decode()}],
    }


def _record_headers() -> Document:
    return _headers(samples.record_of(INSTANCE_EVENT).headers, _RECORD_HEADERS)


def _headers(sample: Mapping[str, str], schemas: Mapping[str, Document]) -> Document:
    """What Kafka headers there are: those of a record that was made, in its order, then those that some have."""
    return {
        "type": "object",
        "required": [name for name in sample if name not in _OPTIONAL_HEADERS],
        "properties": {name: {"type": "string", **schemas[name]} for name in {**sample, **schemas}},
    }


_OPTIONAL_HEADERS: Final = frozenset({REQUEST_ID, "traceparent"})

_INTRODUCTION: Final = """\
The topics that the connector writes, with their records. Values are Avro, but for dead letters, which are bytes as they
came; keys and Kafka headers are UTF-8. A record's timestamp is the moment at which the connector received the message,
and its partition the one in which Java clients would put its key (`murmur2_random`).

Names: a topic is `WEDA_TOPICS__PREFIX` (here `{prefix}`), a dot, and the stream's name. The prefix may hold
`{{source}}` and `{{envType}}`: an address then has these parameters, the name of the source and an environment that it
allows. The topic of dead letters has `{all}` in place of `{{envType}}`, because many of them name no environment, or a
wrong one.

Streams: on by default are {on}; `WEDA_STREAMS` switches others on. Dead letters are always written.

Order: all records of one instance have the same key, so they are in one partition of a topic, in the order in which the
connector accepted them. A record may be there twice after a crash; `weda.fingerprint` and `ce_id` are then the same.

Encoding: no header tells it, the first bytes do. `C3 01` begins Avro's single-object encoding, `00` Confluent's
framing, which is used where `WEDA_REGISTRY__URL` names a registry."""

_SERVER: Final = {
    "host": "{bootstrap}",
    "protocol": "kafka",
    "description": "The brokers that `WEDA_KAFKA__BOOTSTRAP_SERVERS` names.",
    "variables": {"bootstrap": {"default": "localhost:9092", "description": "Brokers as host:port."}},
}

_STREAMS: Final = {
    "events": "Every message, flat, both types in one order for each instance: reads as one SQL table.",
    "instances": "Changes of process instances, in the order of each instance.",
    "tasks": "Changes of tasks, in the order of each instance.",
    "flat": "Every message as scalars and lists of texts, for tables that take no maps.",
    "flat-state": "The last message of each instance as scalars and lists of texts, to upsert or delete a table's row; "
    "the topic is compacted.",
    "state": "The last record of each process instance; the topic is compacted, and a deleted instance is a null "
    "value. Off by default.",
    DEAD_LETTERS: "Requests that could not become a record, as received. Identical bytes within the window of repeats "
    "are one dead letter.",
}

_KEY: Final = {"type": "string", "minLength": 1, "description": "`instanceId` in UTF-8."}
_LETTER_KEY: Final = {
    "type": ["string", "null"],
    "description": "`instanceId` in UTF-8 where it is readable, else null.",
}

_REQUEST_ID_HEADER: Final[Document] = {
    "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$",
    "description": "The `X-Request-Id` of the request, when it had one; the log has it too.",
}
_RECORD_HEADERS: Final[Mapping[str, Document]] = {
    "ce_specversion": {"const": "1.0", "description": "CloudEvents, Kafka binary mode."},
    "ce_id": {
        "description": "`msgId`; `ingestId` where there is none; `<msgId>~<8 hex of the fingerprint>` where that "
        "`msgId` came before with other content.",
    },
    "ce_type": {
        "enum": ["io.weda.workflow.instance.v1", "io.weda.workflow.task.v1"],
        "description": "The type of the message.",
    },
    "ce_source": {
        "pattern": "^/sources/[^/]+(/[^/]+)?$",
        "description": "`/sources/<source>/<envType>`; without `envType`: `/sources/<source>`.",
    },
    "ce_subject": {"description": "`instanceId`, as the key."},
    "ce_time": {"format": "date-time", "description": "`receivedAt`, as the record's timestamp."},
    "content-type": {"const": CONTENT_TYPE, "description": "The same in both encodings."},
    "weda.fingerprint": {
        "pattern": "^[0-9a-f]{32}$",
        "description": "Hash of the parsed message: equal for repeats, for consumers that remove them.",
    },
    REQUEST_ID: _REQUEST_ID_HEADER,
    "traceparent": {"description": "W3C trace context of the request, when it had one."},
}

_LETTER_HEADERS: Final[Mapping[str, Document]] = {
    "weda.error.code": {
        "pattern": "^[0-9]{5}$",
        "description": "The `code` of the answer to the source; 42200 or 41300 where Kafka rejected an accepted "
        "message's record for its own sake.",
    },
    "weda.error.stage": {"description": "Where on the way it failed, as in the answer."},
    "weda.error.message": {"description": "What is wrong, without contents."},
    "weda.source": {"description": "The source that sent it."},
    "weda.received-at": {"pattern": "^[0-9]+$", "description": "Epoch milliseconds."},
    "weda.content-type": {"description": "The `Content-Type` of the request; empty where it had none, as with GET."},
    "weda.attempt": {"pattern": "^[0-9]+$", "description": "1: as received; one more for each replay that failed."},
    REQUEST_ID: _REQUEST_ID_HEADER,
    "weda.streams": {
        "description": "The streams that lack the message, comma-separated: only where Kafka rejected its record, "
        "which others may have taken.",
    },
}
