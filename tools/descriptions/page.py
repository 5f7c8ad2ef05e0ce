"""One HTML page that shows both descriptions: it opens from a file and loads nothing."""

import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from string import Template
from typing import Any, Final

from tools.descriptions.notation import Document

_CODE: Final = re.compile(r"`([^`]+)`")


def render(topics: Document, receiver: Document) -> str:
    """The page.

    Args:
        topics: The AsyncAPI document.
        receiver: The OpenAPI document.
    """
    sections = [
        ("topics", "Topics", _topics(topics)),
        ("records", "Records", _records(topics)),
        ("encodings", "Encodings", _encodings(topics)),
        ("headers", "Kafka headers", _headers(topics)),
        ("fields", "Fields of the records", _fields(topics)),
        ("requests", "Requests", _requests(receiver)),
        ("bodies", "Bodies", _bodies(receiver)),
        ("readings", "How fields are read", _readings(receiver)),
        ("answers", "Answers", _answers(receiver)),
    ]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    body = "".join(_section(name, title, "".join(parts)) for name, title, parts in sections)
    return _PAGE.substitute(version=escape(topics["info"]["version"]), links=links, body=body)


def _section(name: str, title: str, body: str) -> str:
    return (
        f'<section id="{name}">\n<h2>{title}</h2>\n<p lang="zh-CN" class="zh">{_CHINESE[name]}</p>\n{body}</section>\n'
    )


# --- the topics ---


def _topics(document: Document) -> Iterator[str]:
    yield _paragraphs(document["info"]["description"])
    yield _table(
        ("stream", "topic, subject in a registry", "records", "key", "partitions", "configuration", "what it holds"),
        (_topic_row(document, name, channel) for name, channel in document["channels"].items()),
    )
    parameters = _parameters(document)
    if parameters:
        yield _table(
            ("parameter", "values", "meaning"),
            (
                (_code(f"{{{name}}}"), _codes(each["enum"]), _inline(each["description"]))
                for name, each in parameters.items()
            ),
        )


def _parameters(document: Document) -> Document:
    """The parameters of all addresses; of the same name they are the same."""
    return {name: each for channel in document["channels"].values() for name, each in channel["parameters"].items()}


def _topic_row(document: Document, name: str, channel: Document) -> tuple[str, ...]:
    binding = channel["bindings"]["kafka"]
    keys = {_key(_found(document, message))["description"] for message in channel["messages"].values()}
    names = [channel[each] for each in ("address", "x-registry-subject") if each in channel]
    return (
        _code(name),
        "<br>".join(map(_code, names)),
        " ".join(f'<a href="#{message}">{_code(message)}</a>' for message in channel["messages"]),
        " ".join(map(_inline, sorted(keys))),
        str(binding["partitions"]),
        "<br>".join(_configuration(binding["topicConfiguration"])),
        _inline(channel["description"]),
    )


def _configuration(configuration: Document) -> Iterator[str]:
    for name, value in configuration.items():
        yield _code(f"{name}={','.join(value) if isinstance(value, list) else value}")


def _key(message: Document) -> Document:
    key: Document = message["bindings"]["kafka"]["key"]
    return key


def _records(document: Document) -> Iterator[str]:
    for name, message in document["components"]["messages"].items():
        published = [each for each, channel in document["channels"].items() if name in channel["messages"]]
        yield f'<h3 id="{name}">{_code(name)}</h3>\n{_paragraphs(message["summary"])}'
        yield _table(
            ("streams", "key", "value"),
            [(_codes(published), _inline(_key(message)["description"]), _value(message))],
        )
        for example in message["examples"]:
            yield _details("Example: Kafka headers and value", _block(_shown(example)))


def _shown(example: Document) -> Document:
    return {"headers": example["headers"], "value": example["payload"]}


def _value(message: Document) -> str:
    """What the bytes of a record's value are."""
    if _is_avro(message):
        return f"Avro record {_code(message['name'])}, <a href='#fields'>fields</a>"
    return "null" if message["payload"]["type"] == "null" else "bytes as received"


def _is_avro(message: Document) -> bool:
    return "schema" in message["payload"]


def _encodings(document: Document) -> Iterator[str]:
    messages = [each for each in document["components"]["messages"].values() if _is_avro(each)]
    yield _table(
        ("record", "encoding", "when", "first bytes", "then", "schema"),
        (
            (
                _code(message["title"]),
                _inline(each["name"]),
                _inline(each["when"]),
                _code(each["startsWith"]),
                _inline(each["then"]),
                _inline(each["schema"]),
            )
            for message in messages
            for each in message["x-encodings"]
        ),
    )


def _headers(document: Document) -> Iterator[str]:
    groups: dict[str, tuple[Document, list[str]]] = {}
    for name, message in document["components"]["messages"].items():
        headers = _found(document, message["headers"])
        groups.setdefault(json.dumps(headers), (headers, []))[1].append(name)
    for headers, names in groups.values():
        yield f"<h3>Of {_codes(names)}</h3>\n"
        yield _table(
            ("header", "always there", "form", "meaning"),
            (
                (_code(name), "yes" if name in headers["required"] else "no", _form(each), _inline(each["description"]))
                for name, each in headers["properties"].items()
            ),
        )


def _form(schema: Document) -> str:
    """What a text may be, as far as the schema narrows it."""
    if "const" in schema:
        return _code(schema["const"])
    if "enum" in schema:
        return _codes(schema["enum"])
    return _code(schema["pattern"]) if "pattern" in schema else escape(schema.get("format", "text"))


def _fields(document: Document) -> Iterator[str]:
    messages = {name: each for name, each in document["components"]["messages"].items() if _is_avro(each)}
    known = {
        name: {each["name"]: each for each in one["payload"]["schema"]["fields"]} for name, one in messages.items()
    }
    fields = {name: field for one in known.values() for name, field in one.items()}
    yield _table(
        ("field", "Avro type", "meaning", *map(_code, messages)),
        (
            (
                _code(name),
                escape(_avro_type(field["type"])),
                _inline(field["doc"]),
                *("yes" if name in one else "no" for one in known.values()),
            )
            for name, field in fields.items()
        ),
    )


def _avro_type(declared: Any) -> str:
    """``null or array of map of string``."""
    if isinstance(declared, list):
        return " or ".join(map(_avro_type, declared))
    if isinstance(declared, str):
        return declared
    inner = declared.get("items") or declared.get("values")
    if inner is not None:
        return f"{declared['type']} of {_avro_type(inner)}"
    return f"{declared['type']}, {declared['logicalType']}"


# --- the receiver ---


def _requests(document: Document) -> Iterator[str]:
    yield _paragraphs(document["info"]["description"])
    yield _table(
        ("method", "path", "what it does", "limit", "answers"),
        (
            (
                _code(method.upper()),
                _code(path),
                f"{_inline(operation['summary'])}. {_inline(at['summary'])}.",
                _inline(operation["description"]),
                " ".join(f'<a href="#answer-{status}">{status}</a>' for status in operation["responses"]),
            )
            for path, at in document["paths"].items()
            for method, operation in at.items()
            if method not in {"summary", "parameters"}
        ),
    )
    yield "<h3>Parameters</h3>\n"
    yield _table(
        ("parameter", "in", "required", "meaning"),
        (
            (
                _code(each["name"]),
                escape(each["in"]),
                "yes" if each.get("required") else "no",
                _inline(each["description"]),
            )
            for each in document["components"]["parameters"].values()
        ),
    )
    yield "<h3>Credentials</h3>\n"
    yield _table(
        ("credential", "meaning"),
        (
            (_code(_credential(each)), _inline(each["description"]))
            for each in document["components"]["securitySchemes"].values()
        ),
    )


def _credential(scheme: Document) -> str:
    if scheme["type"] == "mutualTLS":
        return "client certificate"
    return "Authorization: Bearer <token>" if scheme["type"] == "http" else str(scheme["name"])


def _bodies(document: Document) -> Iterator[str]:
    body = document["components"]["requestBodies"]["Message"]
    yield _paragraphs(body["description"])
    yield _table(
        ("Content-Type", "what is read"),
        (
            (_code(media_type), _inline(_described(document, content["schema"])))
            for media_type, content in body["content"].items()
        ),
    )
    for name, example in document["components"]["examples"].items():
        yield _details(f"{example['summary']} (<code>{escape(name)}</code>)", _block(example["value"]))


def _described(document: Document, schema: Document) -> str:
    """The description of a schema, or of what the text in it is."""
    text: str = _found(document, schema.get("contentSchema", schema))["description"]
    return text


def _readings(document: Document) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    message = schemas["Message"]
    readings: dict[str, list[str]] = {}
    for name, field in message["properties"].items():
        readings.setdefault(field.get("$ref", "").rpartition("/")[2], []).append(name)
    own = readings.pop("", [])
    yield _paragraphs(message["description"])
    yield _table(
        ("read as", "what a source may send", "fields"),
        [
            *((_code(name), _inline(message["properties"][name]["description"]), _code(name)) for name in own),
            *((escape(kind), _inline(schemas[kind]["description"]), _codes(names)) for kind, names in readings.items()),
        ],
    )


def _answers(document: Document) -> Iterator[str]:
    yield _table(
        ("HTTP", "code", "when", "an example of the body", "HTTP headers"),
        (
            row
            for status, response in document["components"]["responses"].items()
            for row in _answer_rows(status, response)
        ),
    )


def _answer_rows(status: str, response: Document) -> Iterator[tuple[str, ...]]:
    headers = _codes(response.get("headers", ())) or "none"
    anchor = f' id="answer-{status}"'
    for code, example in response["content"]["application/json"]["examples"].items():
        body = f'<code class="long">{escape(json.dumps(example["value"], ensure_ascii=False), quote=False)}</code>'
        yield (f"<span{anchor}>{status}</span>", _code(code), _inline(response["description"]), body, headers)
        anchor = ""


# --- the parts of a page ---


def _found(document: Document, schema: Document) -> Document:
    """What a reference of the document points to; the schema itself where it is none."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for name in schema["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return _found(document, found)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already; the first of each row is its heading."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(f"<tr>{_cells(tuple(row))}</tr>\n" for row in rows)
    return (
        f'<div class="wide" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def _cells(row: tuple[str, ...]) -> str:
    return f'<th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:])


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>\n" for paragraph in text.split("\n\n"))


def _inline(text: str) -> str:
    """Text with what stands in backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _codes(texts: Iterable[str]) -> str:
    return " ".join(map(_code, texts))


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>\n"


def _block(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return f"<pre>{escape(text, quote=False)}</pre>"


_CHINESE: Final = {
    "topics": "连接器写入的 Kafka 主题：名称、键、分区数与保留方式；同一流程实例的记录在同一分区内保持顺序。",
    "records": "每种记录的含义、键和值；死信保存原始请求字节，状态流中的空值表示实例已删除。",
    "encodings": "两种编码靠前几个字节区分：默认是 Avro 单对象编码；配置了注册中心则用 Confluent 格式。",
    "headers": "每条记录的 Kafka 消息头：CloudEvents 属性、内容指纹与链路追踪；死信的消息头说明原因。",
    "fields": "记录的全部字段及其 Avro 类型；字段名与微搭文档一致，未知字段保存在 extras 中。",
    "requests": "微搭推送消息的地址、方法、凭证与大小限制；返回 code 为 0 才表示消息已安全保存。",
    "bodies": "请求体可以是 JSON 文本、JSON 对象、消息本身、表单字段或查询参数，各有示例。",
    "readings": "各类字段可以接受的写法：数字、布尔、日期和映射都按宽松规则读取。",
    "answers": "全部应答：HTTP 状态、code、原因，以及该请求是否作为死信保存。",
}

_PAGE: Final = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>WeDa Kafka connector: interfaces</title>
<!-- Generated by `python -m tools.descriptions html > docs/interfaces.html`; do not edit. -->
<style>
:root { color-scheme: light dark;
  --ink: #1c2024; --soft: #5c6570; --paper: #fff; --panel: #f4f6f8; --line: #d5dae0; --link: #0a58a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #a2abb5; --paper: #15181b; --panel: #1f2428; --line: #3a4249; --link: #7db8f5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.3rem; }
h3 { margin: 1.5rem 0 .25rem; font-size: 1.05rem; }
p { margin: .5rem 0; max-width: 60rem; }
.zh, .version { color: var(--soft); }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 0; padding: 0; list-style: none; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .6rem; border: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--panel); }
tbody th { font-weight: normal; white-space: nowrap; }
code, pre { font: .85em/1.45 ui-monospace, "SF Mono", Consolas, "Liberation Mono", monospace; }
h3 code { font-size: 1em; }
td code { white-space: nowrap; }
td code.long { white-space: normal; overflow-wrap: anywhere; }
pre { margin: .5rem 0; padding: .75rem; background: var(--panel); white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
</style>
</head>
<body>
<header>
<h1>WeDa Kafka connector: interfaces</h1>
<p class="version">Version $version. What goes in over HTTP, and what comes out on Kafka.</p>
<nav aria-label="Sections"><ul>$links</ul></nav>
</header>
<main>
$body</main>
</body>
</html>
""")
