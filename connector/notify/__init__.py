"""Sends personalised notifications from the topics to other platforms.

Rules select events and people, templates write the texts, and an outbox on disk delivers them (ADR 0062).

1. `connector.notify.service`: reads the topics; `connector.notify.progress`: whether it has caught up after a start.
2. `connector.notify.rules`: the rules file; `connector.notify.matching`: applies the rules to an event.
3. `connector.notify.templates`: renders the texts.
4. `connector.notify.outbox`: the notifications to send, on disk.
5. `connector.notify.delivery`: sends them in order per address, through `connector.notify.sending`.
6. `connector.notify.metrics`: the notifier's metrics.
"""
