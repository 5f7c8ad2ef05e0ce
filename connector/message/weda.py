"""What is WeDa's own: the names and shapes that its requests have, and that no setting changes.

The fields and the dictionaries of codes are not here: `avro/*.avsc` defines them (see `connector.message.schemas`);
of the codes only those are here that the connector acts on. The simulator repeats these names on purpose: it plays WeDa
and must not know what the connector expects.
"""

from types import MappingProxyType
from typing import Final

PATH: Final = "/messageDeliver"
"""Where WeDa sends the messages of the default source."""

SOURCES: Final = "/sources/"
"""The path of another source is this, its name, then `PATH`."""

METHODS: Final = ("GET", "POST", "PUT")

TOKEN_HEADER: Final = "X-WeDa-Token"  # noqa: S105 - a name
"""The HTTP header of the credential, where the platform cannot set ``Authorization``."""

OUTCOME_HEADER: Final = "X-WeDa-Outcome"
"""The HTTP header that says whether a message that was not accepted may be published all the same."""

ACCEPTED: Final = b'{"code":0}'
"""The answer that WeDa takes for success."""

ENVELOPE: Final = "msgContext"
"""The member, form field or query parameter that holds the message."""

TEMPLATE: Final = f'{{"{ENVELOPE}": {{{{params.{ENVELOPE}}}}}}}'
"""The body template for WeDa's request. It is the only one that needs no encoding, which WeDa cannot do."""

FORM: Final = "application/x-www-form-urlencoded"
"""The media type of a form with the message in `ENVELOPE`."""

JSON_MEDIA_TYPES: Final = ("application/json", "text/plain", "application/octet-stream")
"""What platforms declare a JSON body as."""

INSTANCE: Final = "Instance"
"""``msgType`` of a message about a whole run of a process."""

TASK: Final = "Task"
"""``msgType`` of a message about one person's task."""

MESSAGE_TYPES: Final = MappingProxyType({name.lower(): name for name in (INSTANCE, TASK)})
"""``msgType`` in lower case → as it is published; WeDa's spelling differs from platform to platform."""

ENVIRONMENTS: Final = ("pre", "prod")
"""The values of ``envType``."""

WITHDRAW: Final = 5
"""``action`` 撤销: a task was withdrawn."""

SEND_BACK: Final = 6
"""``action`` 回退: a task was sent back."""

DELETE_INSTANCE: Final = 18
"""``action`` 删除流程实例: an instance was deleted."""

INSTANCE_DELETED: Final = 5
"""``instanceStatus`` 已删除: the instance is deleted."""
