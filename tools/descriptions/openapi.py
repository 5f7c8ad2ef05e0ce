"""OpenAPI of the public listener: where sources send messages, in which shapes, and every answer that they can get.

The message's fields come from the Avro schemas and the limits from the settings. The answers to what cannot become a
record are those of the connector's own steps, run over a sample of each.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qsl

from connector import endpoints
from connector.answers import MAX_URL_BYTES
from connector.errors import (
    ConnectorError,
    Defect,
    Malformed,
    OutcomeUnknown,
    Overloaded,
    TooLarge,
    TooSlow,
    Unavailable,
    WrongMediaType,
    WrongMethod,
    WrongPath,
)
from connector.message import parsing, weda
from connector.message.schemas import CONNECTOR_FIELDS, INSTANCE_EVENT, TASK_EVENT, WORKFLOW_EVENT, Kind, kinds, load
from connector.message.weda import ENVELOPE
from connector.receiver import application, connection, signatures
from connector.settings import Settings
from connector.settings.signing_secrets import WINDOW_SECONDS
from connector.simulator import Shape
from tools.descriptions import samples
from tools.descriptions.notation import Document, prose

PATHS: Final = (endpoints.DELIVER_PATH, endpoints.path_of("{source}"))
METHODS: Final = ("post", "put", "get")

_TYPES: Final = {"instance": INSTANCE_EVENT, "task": TASK_EVENT}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of one status.

    Attributes:
        when: When a source gets it.
        kept: Whether the request is kept as a dead letter, as a sentence.
        errors: What it can be, each with its own ``code``.
        headers: HTTP headers that it has.
    """

    when: str
    kept: str
    errors: tuple[ConnectorError, ...]
    headers: Mapping[str, Document]


def document(settings: Settings) -> Document:
    """OpenAPI 3.1 of the public listener of a connector with these settings."""
    answers = _answers(settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "WeDa Kafka connector: receiver",
            "version": version("weda-kafka-connector"),
            "description": prose(_INTRODUCTION.format(seconds=settings.receiver.reply_deadline_seconds)),
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [_server(settings)],
        "security": _SECURITY,
        "paths": {path: _path(path, settings) for path in PATHS},
        "components": {
            "securitySchemes": _CREDENTIALS,
            "parameters": _PARAMETERS,
            "requestBodies": {"Message": _request_body(settings)},
            "responses": {"200": _ACCEPTED} | {str(status): _response(answers[status]) for status in answers},
            "schemas": {**_SCHEMAS, "Message": _message(), **_KINDS},
            "examples": _examples(),
        },
    }


def statuses_of(path: str, method: str) -> tuple[int, ...]:
    """The statuses that a method of a path can be answered with; elsewhere there are 404 and 405."""
    with_body = () if method == "get" else (408, 415)
    named = (404,) if "{" in path else ()
    return tuple(sorted((200, 400, 401, 403, 413, 422, 429, 431, 500, 503, *with_body, *named)))


def _server(settings: Settings) -> Document:
    port = str(settings.receiver.port)
    return {
        "url": "http://{host}:{port}",
        "description": "The public listener (`WEDA_RECEIVER__HOST`, `WEDA_RECEIVER__PORT`).",
        "variables": {"host": {"default": "localhost"}, "port": {"default": port}},
    }


def _path(path: str, settings: Settings) -> Document:
    shared = [{"$ref": f"#/components/parameters/{name}"} for name in ("traceparent", "x-request-id")]
    if "{source}" in path:
        shared = [{"$ref": "#/components/parameters/source"}, *shared]
    operations = {method: _operation(path, method, settings) for method in METHODS}
    return {"summary": _PATH_SUMMARIES[path], "parameters": shared, **operations}


def _operation(path: str, method: str, settings: Settings) -> Document:
    operation: Document = {
        "operationId": method + ("Named" if "{" in path else "Default"),
        "summary": _METHOD_SUMMARIES[method],
    }
    if method == "get":
        operation["description"] = f"The whole URL is at most {MAX_URL_BYTES} bytes."
        operation["parameters"] = [{"$ref": "#/components/parameters/msgContext"}]
    else:
        operation["description"] = f"The body is at most {settings.receiver.max_body_bytes} bytes."
        operation["requestBody"] = {"$ref": "#/components/requestBodies/Message"}
    operation["responses"] = {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses_of(path, method)
    }
    return operation


# --- what is sent ---


def _request_body(settings: Settings) -> Document:
    limit = settings.receiver.max_body_bytes
    bounds = {"seconds": application.BODY_SECONDS, "nesting": parsing.MAX_NESTING, "values": parsing.MAX_VALUES}
    return {
        "description": prose(_BODY.format(limit=limit, **bounds)),
        "required": True,
        "content": {
            **{media_type: _json_content(media_type) for media_type in weda.JSON_MEDIA_TYPES},
            weda.FORM: {"schema": {"$ref": "#/components/schemas/Form"}, "examples": _references((Shape.FORM,))},
        },
        "x-max-bytes": limit,
    }


def _json_content(media_type: str) -> Document:
    if media_type != "application/json":
        return {"schema": {**_JSON_TEXT, "contentSchema": {"$ref": "#/components/schemas/Body"}}}
    shapes = (Shape.TEXT, Shape.OBJECT, Shape.BARE)
    return {"schema": {"$ref": "#/components/schemas/Body"}, "examples": _references(shapes)}


def _references(shapes: Iterable[Shape]) -> Document:
    names = (f"{kind}-{shape}" for kind in _TYPES for shape in shapes)
    return {name: {"$ref": f"#/components/examples/{name}"} for name in names}


def _examples() -> Document:
    return {
        f"{kind}-{shape}": {"summary": _SHAPES[shape], "value": _value(record_type, shape)}
        for kind, record_type in _TYPES.items()
        for shape in samples.SHAPES
    }


def _value(record_type: str, shape: Shape) -> Any:
    """A sample request as OpenAPI shows one: the JSON, a form's fields, a parameter's text."""
    outgoing = samples.request_of(record_type, shape)
    if shape is Shape.QUERY:
        return dict(parse_qsl(outgoing.query, strict_parsing=True))[ENVELOPE]
    return dict(parse_qsl(outgoing.body.decode())) if shape is Shape.FORM else json.loads(outgoing.body)


def _message() -> Document:
    """The message object, in the leniency with which its fields are read."""
    known = kinds(load(WORKFLOW_EVENT))
    definitions = {each["name"]: each for each in json.loads(load(WORKFLOW_EVENT).text)["fields"]}
    read = {
        name: {"$ref": f"#/components/schemas/{_KIND_NAMES[kind]}", "description": definitions[name]["doc"]}
        for name, kind in known.items()
    }
    own = {name: {**schema, "description": definitions[name]["doc"]} for name, schema in _REQUIRED.items()}
    return {
        "type": "object",
        "description": prose(_MESSAGE.format(ours=", ".join(f"`{name}`" for name in CONNECTOR_FIELDS))),
        "required": list(_REQUIRED),
        "properties": {**read, **own},
        "additionalProperties": True,
    }


def _any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter.lower()}]" for letter in word)


# --- what is answered ---


def _answers(settings: Settings) -> dict[int, Answer]:
    limit = settings.receiver.max_body_bytes
    return {
        400: Answer(
            "The body is empty, or readable in no shape, or the request can be read in two ways.",
            "A dead letter, but for an empty body (40000) and what is no proper HTTP (40090).",
            (*_refusals(400), Malformed("a header that must be single came twice: send each once")),
            {},
        ),
        401: Answer(
            "No credential, one that no source has, or no such source; a signature that is not the body's, is too old, "
            "or came before with another body.",
            _NOTHING,
            (samples.stranger(None),),
            {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
        ),
        403: Answer(
            "The credential is another source's, or is sent from a network that is none of the source's.",
            _NOTHING,
            (samples.stranger(samples.TOKENS["hr"]),),
            {},
        ),
        404: Answer(
            "No such address.",
            _NOTHING,
            (WrongPath("no such address: use /messageDeliver or /sources/<source>/messageDeliver"),),
            {},
        ),
        405: Answer(
            "The method is none of those here.",
            _NOTHING,
            (WrongMethod("the method is DELETE: use POST, PUT or GET"),),
            {"Allow": {"schema": {"const": "GET, POST, PUT"}}},
        ),
        408: Answer(
            f"The body did not arrive within {application.BODY_SECONDS:.0f} seconds.",
            _NOTHING,
            (TooSlow(f"the body did not arrive within {application.BODY_SECONDS:.0f} seconds"),),
            {},
        ),
        413: Answer(
            "The body or the URL is over its limit, or a record over its topic's `max.message.bytes`.",
            _NOTHING,
            (TooLarge(f"the body is over {limit} bytes (WEDA_RECEIVER__MAX_BODY_BYTES)"),),
            {},
        ),
        415: Answer(
            "A media type, charset or content encoding that is not read.",
            _NOTHING,
            (WrongMediaType("use Content-Type: application/json or application/x-www-form-urlencoded"),),
            {},
        ),
        422: Answer("Readable, but no record can be made of it.", "A dead letter.", _refusals(422), {}),
        429: Answer(
            "Too many messages are on their way (`WEDA_RECEIVER__MAX_IN_FLIGHT`), or the source is over its rate.",
            _NOTHING,
            (Overloaded("too many messages are on their way (WEDA_RECEIVER__MAX_IN_FLIGHT): send it again"),),
            _REFUSED,
        ),
        431: Answer(
            f"The head is over {connection.MAX_HEAD_BYTES} bytes or {connection.MAX_HEADERS} header fields.",
            _NOTHING,
            (connection.HEAD_TOO_LARGE,),
            {},
        ),
        500: Answer(
            "A defect of the connector.",
            "A dead letter, unless the defect is in a check before the message is read.",
            (Defect("a defect of the connector; the request is kept as a dead letter"),),
            {},
        ),
        503: Answer(
            "Neither Kafka nor the journal can make the message safe now, or the connector is shutting down.",
            "Of 50300 nothing, it is only counted. Of 50301 nobody knows yet: the message goes on its way, and may be "
            "published.",
            (
                Unavailable("the connector is shutting down: send it again", retry_after=5),
                OutcomeUnknown(
                    "neither Kafka nor the journal took the message in time; it may be published all the same: "
                    "send it again with the same msgId",
                    retry_after=1,
                ),
            ),
            _REFUSED,
        ),
    }


def _refusals(status: int) -> tuple[ConnectorError, ...]:
    """The errors of the samples whose code is of a status."""
    return tuple(samples.refusal(*samples.REFUSED[code]) for code in samples.REFUSED if code // 100 == status)


def _response(answer: Answer) -> Document:
    first = answer.errors[0]
    response: Document = {"description": f"{answer.when} Kept: {answer.kept[0].lower()}{answer.kept[1:]}"}
    response["headers"] = dict(answer.headers)
    if first is not connection.HEAD_TOO_LARGE:  # answered before there is a request
        response["headers"] |= _REQUEST_ID
    narrowed = {
        "code": {"enum": [error.code for error in answer.errors]},
        "stage": {"enum": list(dict.fromkeys(error.stage for error in answer.errors))},
        "retriable": {"const": first.retriable},
    }
    schema = {"allOf": [{"$ref": "#/components/schemas/Refusal"}, {"properties": narrowed}]}
    examples = {str(error.code): {"value": _as_json(error)} for error in answer.errors}
    return {**response, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _as_json(error: ConnectorError) -> Document:
    return {"code": error.code, "message": error.message, "stage": error.stage, "retriable": error.retriable}


# --- words and schemas ---

_NOTHING: Final = "Nothing, it is only counted."
_INTRODUCTION: Final = """\
Where Tencent Cloud WeDa (微搭), or whoever plays it, sends the messages of its workflows (流程消息订阅).

Every answer is JSON with a `code`. `{{"code":0}}` says that the message is safe: all in-sync replicas have acknowledged
its records, or it is on the connector's disk, or it is a repeat of one that is. Any other `code` is the HTTP status and
two more digits. The answer comes within {seconds} seconds after the body. Of what is answered with 503 and 50300
nothing is kept; what is answered with 503 and 50301 (HTTP header `X-WeDa-Outcome: unknown`) goes on its way and may be
published: send it again with the same `msgId`, which makes it known as a repeat, and without one not at all.

Checks are made in this order: path (404), method (405), credential (401, 403), room (503, 429), size (413), time (408),
media type (415), then the body. An address that is not below is answered with 404, a method that is not below with
405. What is no HTTP is answered with 400 and code 40090, and the connection ends. Who signs and shows no other
credential is known once the body is read: of these, size and time come before the signature.

Where the source that the path names has `answers: code-only`, every answer below has status 200, and `code` alone
tells; headers and body are the same. The answer to HEAD, which has no body, keeps its status."""

_BODY: Final = """\
One message, in any of the shapes that WeDa's request templates can give it. At most {limit} bytes
(`WEDA_RECEIVER__MAX_BODY_BYTES`), which have to arrive within {seconds:.0f} seconds.

UTF-8 whatever the media type; a byte order mark is taken, another declared charset and a `Content-Encoding` are
answered with 415. A body without a `Content-Type` is read as JSON. JSON is read strictly: no NaN, no control characters
in text, nesting of at most {nesting} levels, at most {values} members and elements; of duplicate keys the last wins."""

_MESSAGE: Final = """\
What WeDa says of one change. `Instance` messages have the fields of an instance, `Task` messages those of a task; every
field but `instanceId` and `msgType` may be missing or null. Fields that are not listed are kept in the record's
`extras`, and so are fields of the connector's own names: {ours}."""

_PATH_SUMMARIES: Final = {
    PATHS[0]: "Messages of the source `default`",
    PATHS[1]: "Messages of a named source; `default` is one too",
}
_METHOD_SUMMARIES: Final = {
    "post": "Deliver one message",
    "put": "Deliver one message, as by POST",
    "get": "Deliver one message in the query string, where the template has no body",
}
_SHAPES: Final = {
    Shape.TEXT: "JSON text in msgContext",
    Shape.OBJECT: "An object in msgContext",
    Shape.BARE: "The message itself",
    Shape.FORM: "JSON text in a form field",
    Shape.QUERY: "JSON text in the query string",
}

_SIGNATURE: Final = {
    "webhookId": "The message's own id, the same for each attempt to send it. What was accepted under an id is "
    "answered with code 0 when it comes again with the same body, and is not published again; with another body it "
    "is 401.",
    "webhookTimestamp": f"Epoch seconds; within {WINDOW_SECONDS} seconds of the connector's clock.",
    "webhookSignature": "`v1,` and the Base64 of HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`, by a "
    "secret of the source (`secrets` in `WEDA_SOURCES`, `whsec_…`); several between spaces. Of a GET the body is the "
    "query string as sent.",
}
_CREDENTIALS: Final[Document] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the source (`WEDA_TOKEN`, `WEDA_SOURCES`). It counts where both are sent. A "
        "connector without any token asks for none; it then listens on loopback only, unless WEDA_AUTH is none.",
    },
    "wedaToken": {
        "type": "apiKey",
        "in": "header",
        "name": "X-WeDa-Token",
        "description": "The same token, where a template cannot set `Authorization`.",
    },
    **{
        scheme: {
            "type": "apiKey",
            "in": "header",
            "name": name,
            "description": f"Standard Webhooks. {_SIGNATURE[scheme]}",
        }
        for scheme, name in zip(_SIGNATURE, signatures.HEADERS, strict=True)
    },
    "certificate": {
        "type": "mutualTLS",
        "description": "A client certificate whose name the source has (`certificates` in `WEDA_SOURCES`), where the "
        "listener speaks TLS (`WEDA_RECEIVER__TLS_CLIENT_CA`).",
    },
}
_SECURITY: Final[list[dict[str, list[str]]]] = [
    {"bearer": []},
    {"wedaToken": []},
    {name: [] for name in _SIGNATURE},
    {"certificate": []},
]
_JSON_TEXT: Final[Document] = {"type": "string", "contentMediaType": "application/json"}
_MESSAGE_TEXT: Final = {**_JSON_TEXT, "contentSchema": {"$ref": "#/components/schemas/Message"}}

_PARAMETERS: Final = {
    "source": {
        "name": "source",
        "in": "path",
        "required": True,
        "description": "The name of a source of `WEDA_SOURCES`.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
        "example": "default",
    },
    "x-request-id": {
        "name": "x-request-id",
        "in": "header",
        "description": "The request's id in the log, in the answer and in the Kafka header `weda.request-id`: 1 to 128 "
        "letters, digits and `._:/+=@-`.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C trace context; the records carry it on as a Kafka header.",
        "schema": {"type": "string"},
    },
    ENVELOPE: {
        "name": ENVELOPE,
        "in": "query",
        "required": True,
        "description": "The message as JSON text, percent-encoded UTF-8.",
        "schema": _MESSAGE_TEXT,
        "examples": _references((Shape.QUERY,)),
    },
}

_REQUEST_ID: Final = {
    "X-Request-Id": {
        "description": "The request's own, or where it has none that is fit, one of the connector's; the log has it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"},
        "example": "5f2c81d0-1a",
    }
}

_ACCEPTED: Final = {
    "description": "The message is safe. Kept: in Kafka, or in the journal until it is there.",
    "headers": _REQUEST_ID,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/Accepted"},
            "examples": {"0": {"value": {"code": 0}}},
        }
    },
}
_REFUSED: Final[Mapping[str, Document]] = {
    "Retry-After": {
        "description": "Seconds to wait before sending the same again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-WeDa-Outcome": {
        "description": "`refused`: nothing of the message is kept, any connector may be asked again. `unknown` (code "
        "50301): it may be published; only with its `msgId` is the same again known as a repeat, by this connector or "
        "one that shares its journal.",
        "required": True,
        "schema": {"enum": ["refused", "unknown"]},
    },
}

_SCHEMAS: Final[Document] = {
    "Accepted": {
        "type": "object",
        "required": ["code"],
        "properties": {"code": {"const": 0}},
        "additionalProperties": False,
    },
    "Refusal": {
        "type": "object",
        "required": ["code", "message", "stage", "retriable"],
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status and two more digits."},
            "message": {"type": "string", "description": "What is wrong and what to do; nothing of what was sent."},
            "stage": {"type": "string", "description": "Where on the way it happened."},
            "retriable": {"type": "boolean", "description": "Whether sending the same again can help."},
        },
        "additionalProperties": False,
    },
    "Body": {
        "description": "An envelope, the message itself, or the message as JSON text of JSON text.",
        "anyOf": [{"$ref": "#/components/schemas/Envelope"}, {"$ref": "#/components/schemas/Message"}, _MESSAGE_TEXT],
    },
    "Envelope": {
        "type": "object",
        "required": [ENVELOPE],
        "properties": {ENVELOPE: {"anyOf": [_MESSAGE_TEXT, {"$ref": "#/components/schemas/Message"}]}},
        "description": "What is beside the message is not read.",
    },
    "Form": {
        "type": "object",
        "required": [ENVELOPE],
        "properties": {ENVELOPE: _MESSAGE_TEXT},
        "description": "A form of at most 1000 fields; all but one are not read.",
    },
}

_REQUIRED: Final[Document] = {
    "instanceId": {"anyOf": [{"type": "string", "pattern": r"\S"}, {"type": "number"}]},
    "msgType": {"type": "string", "pattern": f"^({'|'.join(map(_any_case, weda.MESSAGE_TYPES))})$"},
}
_KIND_NAMES: Final[Mapping[Kind, str]] = {
    "string": "Text",
    "int": "WholeNumber",
    "boolean": "Flag",
    "date": "Moment",
    "maps": "Maps",
}
_KINDS: Final[Document] = {
    "Text": {
        "description": "Text, kept as sent; a number becomes its digits, true and false and what has parts their JSON "
        "text.",
    },
    "WholeNumber": {
        "description": "A whole number of 32 bits, also as text or with zeros after its point; the empty string is "
        "null.",
        "anyOf": [
            {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
            {"type": "string", "pattern": r"^(\s*[+-]?[0-9]{1,20}(\.0+)?\s*)?$"},
            {"type": "null"},
        ],
    },
    "Flag": {
        "description": "True or false, also as text in any case, or 1 and 0; the empty string is null.",
        "anyOf": [
            {"type": "boolean"},
            {"enum": [0, 1]},
            {"type": "string", "pattern": rf"^(\s*({_any_case('true')}|{_any_case('false')}|0|1)\s*)?$"},
            {"type": "null"},
        ],
    },
    "Moment": {
        "description": "Epoch milliseconds (from 10¹¹ on) or seconds, also as text; ISO 8601, or yyyy-MM-dd HH:mm:ss, "
        "with or without a zone (`WEDA_TIMEZONE`), with slashes or numbers of one digit too; digits that are a "
        "calendar date of 1970 to 2100 (yyyyMMdd, yyyyMMddHHmmss) are that date; 0, the empty string, `-` and "
        "0000-00-00 are null. Within the years 1970 to 9999.",
        "anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "null"}],
    },
    "Maps": {
        "description": "A map of id to name or a list of such maps, also as JSON text; values that are not text become "
        "their JSON text.",
        "anyOf": [
            {"type": "object"},
            {"type": "array", "items": {"type": ["object", "null"]}},
            _JSON_TEXT,
            {"type": "null"},
        ],
    },
}
