"""Renders ``helm/values.schema.json``: closed, and what is below ``settings`` comes from the connector's own models.

In draft 7, which every Helm from 3.0 on reads. Secrets have no place below ``settings``: a ConfigMap would show them.
``helm/templates/_variables.tpl`` has the names by which templates know a setting from a typing error.
"""

import json
import re
from typing import Any

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from connector.settings import Journal, Receiver, Settings

JOURNAL_FOLDER = "/var/lib/weda-connector/"
SECRET_PROPERTIES = r"password$|passphrase$|secret$|key\.pem$|(oauthbearer|jaas)\.config$"
PART = "^WEDA_(KAFKA__PROPERTIES__[A-Z0-9_]*[A-Z0-9]|SOURCES__[A-Z0-9][A-Z0-9_]*__(TOKENS|SECRETS))$"
"""Variables that set one property of the Kafka clients, or the credentials of one source."""

_SECRET_FORMAT = "password"

Schema = dict[str, Any]


def rendered() -> str:
    """The text of the file."""
    return json.dumps(values_schema(), indent=2, ensure_ascii=False) + "\n"


def values_schema() -> Schema:
    """The JSON Schema of the chart's values."""
    values = {
        "global": GLOBAL,
        "nameOverride": {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"},
        "fullnameOverride": {"type": "string", "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"},
        "commonLabels": LABELS,
        "commonAnnotations": TEXTS_BY_NAME,
        "image": closed(
            repository=FILLED, tag=TEXT, digest=DIGEST, pullPolicy=one_of("IfNotPresent", "Always", "Never")
        ),
        "imagePullSecrets": many(closed(name=FILLED)),
        "replicaCount": or_null(whole(0)),
        "acceptReorderingInOutages": SWITCH,
        "settings": {"$ref": "#/$defs/settings"},
        "secretSettings": secret_settings(),
        "certificates": by_name("^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$", closed(existingSecret=FILLED)),
        "sharedJournal": needs(
            "existingSecret",
            enabled=SWITCH,
            existingSecret=TEXT,
            key=FILLED,
            migration=closed(existingSecret=TEXT, key=FILLED, backoffLimit=whole(0), activeDeadlineSeconds=whole(1)),
            egress=OBJECTS,
        ),
        "autoscaling": closed(
            enabled=SWITCH,
            minReplicas=whole(1),
            maxReplicas=whole(1),
            targetCPU=CPU,
            metrics=many(having("type")),
            behavior=ANY_OBJECT,
        ),
        "persistence": closed(
            existingClaim=TEXT,
            size=QUANTITY,
            storageClassName=TEXT,
            accessModes=many(FILLED, 1),
            annotations=TEXTS_BY_NAME,
        ),
        "service": closed(
            type=one_of("ClusterIP", "NodePort", "LoadBalancer"),
            port=PORT,
            nodePort=NODE_PORT,
            externalTrafficPolicy=one_of("", "Cluster", "Local"),
            internalTrafficPolicy=one_of("", "Cluster", "Local"),
            loadBalancerClass=TEXT,
            loadBalancerSourceRanges=many(FILLED),
            ipFamilyPolicy=one_of("", "SingleStack", "PreferDualStack", "RequireDualStack"),
            ipFamilies={**many(one_of("IPv4", "IPv6")), "maxItems": 2, "uniqueItems": True},
            annotations=TEXTS_BY_NAME,
        ),
        "ingress": needs(
            "hosts", enabled=SWITCH, className=TEXT, annotations=TEXTS_BY_NAME, hosts=many(FILLED), tls=OBJECTS
        ),
        "httpRoute": needs(
            "parentRefs", enabled=SWITCH, annotations=TEXTS_BY_NAME, parentRefs=OBJECTS, hostnames=many(FILLED)
        ),
        "serviceMonitor": MONITOR,
        "podMonitor": MONITOR,
        "prometheusRule": closed(
            enabled=SWITCH,
            namespace=TEXT,
            labels=LABELS,
            disabled=by_name("^[A-Z][A-Za-z]*$", SWITCH),
            additionalRules=many({"anyOf": [having("alert", "expr"), having("record", "expr")]}),
            runbookUrl=FILLED,
        ),
        "dashboards": closed(enabled=SWITCH, labels=LABELS, annotations=TEXTS_BY_NAME),
        "networkPolicy": closed(enabled=SWITCH, **{"from": OBJECTS}, operationsFrom=OBJECTS, egress=OBJECTS),
        "podDisruptionBudget": closed(
            enabled=SWITCH,
            maxUnavailable=or_null(PODS),
            minAvailable=or_null(PODS),
            unhealthyPodEvictionPolicy=one_of("", "IfHealthyBudget", "AlwaysAllow"),
        ),
        "serviceAccount": closed(create=SWITCH, name=TEXT, annotations=TEXTS_BY_NAME),
        "probes": closed(startup=PROBE, liveness=PROBE, readiness=PROBE),
        "preStopSeconds": whole(0),
        "setup": closed(enabled=SWITCH, backoffLimit=whole(0), activeDeadlineSeconds=whole(1)),
        "drain": closed(claims={**many(FILLED), "uniqueItems": True}, giveUpSeconds=whole(1), backoffLimit=whole(0)),
        "jobs": closed(annotations=TEXTS_BY_NAME, podAnnotations=TEXTS_BY_NAME, podLabels=LABELS),
        "resources": ANY_OBJECT,
        "podSecurityContext": ANY_OBJECT,
        "securityContext": ANY_OBJECT,
        "updateStrategy": ANY_OBJECT,
        "podAnnotations": TEXTS_BY_NAME,
        "podLabels": LABELS,
        "priorityClassName": TEXT,
        "runtimeClassName": TEXT,
        "schedulerName": TEXT,
        "dnsPolicy": one_of("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        "dnsConfig": ANY_OBJECT,
        "hostAliases": many(having("ip")),
        "nodeSelector": LABELS,
        "tolerations": OBJECTS,
        "affinity": ANY_OBJECT,
        "topologySpreadConstraints": OBJECTS,
        "extraEnv": many({**closed(name=FILLED, value=TEXT, valueFrom=ANY_OBJECT), "required": ["name"]}),
        "extraEnvFrom": OBJECTS,
        "extraVolumes": many(having("name")),
        "extraVolumeMounts": many(having("name", "mountPath")),
        "extraContainers": many(having("name")),
        "extraInitContainers": many(having("name")),
        "extraObjects": {"type": "array", "items": {"anyOf": [having("apiVersion", "kind"), FILLED]}},
        "notify": closed(
            enabled=SWITCH, rules=ANY_OBJECT, targetsSecret=TEXT, group=FILLED, size=QUANTITY, storageClassName=TEXT
        ),
    }
    settings, definitions = settings_schema()
    schema = closed(**values)
    schema["properties"]["enabled"] = SWITCH  # the condition by which a chart that has this one as a part leaves it out
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart weda-connector",
        **schema,
        "$defs": {"settings": settings, **definitions},
    }


# --- what is below `settings` ---


def settings_schema() -> tuple[Schema, Schema]:
    """The schema of the configuration file without what is secret, and the definitions that it refers to."""
    schema = _without_secrets(Settings.json_schema())
    definitions = schema.pop("$defs")
    del schema["$schema"]
    kafka = definitions["Kafka"]["properties"]["properties"]
    kafka["propertyNames"] = {"not": {"pattern": SECRET_PROPERTIES}}
    definitions["Journal"]["properties"]["path"]["pattern"] = f"^{JOURNAL_FOLDER}[^/]+$"
    for group in ("Receiver", "Operations"):
        definitions[group]["properties"]["port"]["minimum"] = 1  # any free one is none that a Service could name
    for group, name in ((Receiver, "max_body_bytes"), (Journal, "max_bytes")):
        in_bytes, _ = definitions[group.__name__]["properties"][name]["anyOf"]
        in_bytes |= _bounds(group.model_fields[name])
    definitions["Journal"]["required"] = ["path"]  # the connector's default is another one
    schema["required"] = ["journal"]
    return schema, definitions


def _bounds(field: FieldInfo) -> Schema:
    """Of a number that may be text with a unit as well, whose own schema says nothing of them."""
    least = [each.ge for each in field.metadata if isinstance(each, Ge)]
    most = [each.le for each in field.metadata if isinstance(each, Le)]
    return {"minimum": least[0], "maximum": most[0]}


def _without_secrets(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_secrets(each) for each in node]
    if not isinstance(node, dict):
        return node
    filled = {"minLength": 1} if node.get("format") == "path" else {}  # an empty one is a file that cannot be read
    return {name: _without_secrets(each) for name, each in node.items() if not _is_secret(each)} | filled


def _is_secret(node: Any) -> bool:
    """Whether a property is one, or a list of some."""
    if not isinstance(node, dict):
        return False
    kinds = [node, node.get("items"), *node.get("anyOf", ())]
    return any(isinstance(kind, dict) and kind.get("format") == _SECRET_FORMAT for kind in kinds)


def secret_settings() -> Schema:
    """Every setting there is, and every part of one, by its variable, may come from a Secret."""
    secret = closed(existingSecret=TEXT, key=FILLED)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: secret for name, _, _ in Settings.describe()},
        "patternProperties": {PART: secret},
    }


def variables() -> str:
    """A template that has the variables of all settings, and one that has the pattern of their parts."""
    names = "".join(f"- {name}\n" for name, _, _ in Settings.describe())
    begin = '{{/* Made by `make generate`. */}}\n{{- define "weda-connector.variables" -}}\n'
    pattern = f'{{{{- define "weda-connector.part" -}}}}\n{PART}\n{{{{- end }}}}'
    return f"{begin}{names}{{{{- end }}}}\n\n{pattern}\n"


# --- kinds of values ---


def closed(**properties: Schema) -> Schema:
    """An object with these properties and no others, and with all that may not be empty: null takes a default away."""
    needed = [name for name, kind in properties.items() if not _may_be_empty(kind)]
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": needed}


def _may_be_empty(kind: Schema) -> bool:
    if kind is NODE_PORT or "" in kind.get("enum", ()) or {"type": "null"} in kind.get("anyOf", ()):
        return True
    empty = {"array": "minItems", "object": "required", "string": "minLength"}.get(str(kind.get("type")))
    return empty is not None and empty not in kind and re.search(kind.get("pattern", ""), "") is not None


def or_null(kind: Schema) -> Schema:
    """A value that may be left to somebody else."""
    return {"anyOf": [kind, {"type": "null"}]}


def having(*names: str) -> Schema:
    """An object of Kubernetes that has these texts at least."""
    return {"type": "object", "properties": dict.fromkeys(names, FILLED), "required": list(names)}


def needs(name: str, **properties: Schema) -> Schema:
    """As ``closed``; once it is enabled, the list or text of that name must not be empty."""
    enabled = {"properties": {"enabled": {"const": True}}, "required": ["enabled"]}
    filled = {"minItems": 1, "minLength": 1}
    return {**closed(**properties), "if": enabled, "then": {"properties": {name: filled}, "required": [name]}}


def many(kind: Schema, least: int = 0) -> Schema:
    """A list of so many at least."""
    return {"type": "array", "items": kind, **({"minItems": least} if least else {})}


def by_name(pattern: str, kind: Schema) -> Schema:
    """An object whose names have a pattern."""
    return {"type": "object", "additionalProperties": False, "patternProperties": {pattern: kind}}


def whole(least: int, most: int = 2**31 - 1) -> Schema:
    """A whole number; Kubernetes keeps 32 bits of most."""
    return {"type": "integer", "minimum": least, "maximum": most}


def one_of(*words: str) -> Schema:
    """One of the words."""
    return {"enum": list(words)}


TEXT: Schema = {"type": "string"}
FILLED: Schema = {"type": "string", "minLength": 1}
SWITCH: Schema = {"type": "boolean"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
NODE_PORT: Schema = {"type": "integer", "minimum": 0, "maximum": 65535}
PERCENT: Schema = {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}
DIGEST: Schema = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
QUANTITY: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?)?$"}
CPU: Schema = {"type": "string", "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]+)?)?$"}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|[smhd]))+$"}
TIMEOUT: Schema = {"type": "string", "pattern": "^([0-9]+(ms|[smhd]))*$"}
PODS: Schema = {"anyOf": [whole(0), PERCENT]}
TEXTS_BY_NAME: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
LABELS: Schema = {
    "type": "object",
    "additionalProperties": {
        "type": "string",
        "maxLength": 63,
        "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    },
}
ANY_OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = many(ANY_OBJECT)
MONITOR: Schema = closed(
    enabled=SWITCH,
    namespace=TEXT,
    interval=DURATION,
    scrapeTimeout=TIMEOUT,
    labels=LABELS,
    jobLabel=TEXT,
    relabelings=OBJECTS,
    metricRelabelings=OBJECTS,
    tlsConfig=ANY_OBJECT,
)
GLOBAL: Schema = {  # open: every chart that is part of the same one finds its own there
    "type": "object",
    "properties": {
        "imageRegistry": TEXT,
        "imagePullSecrets": many({"anyOf": [FILLED, {**having("name"), "additionalProperties": False}]}),
    },
}
PROBE: Schema = closed(periodSeconds=whole(1), failureThreshold=whole(1), timeoutSeconds=whole(1))
