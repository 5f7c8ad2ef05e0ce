"""Personalised messages to other platforms from the topics: rules choose, templates word, an outbox delivers.

1. `connector.notify.service`: reads the topics.
2. `connector.notify.rules`: the rules file; `connector.notify.matching`: who is notified of what in an event.
3. `connector.notify.templates`: the text.
4. `connector.notify.outbox`: what is to be sent, on disk.
5. `connector.notify.delivery`: sends it, each address in its order, by `connector.notify.sending`.
6. `connector.notify.metrics`: its metrics.
"""
