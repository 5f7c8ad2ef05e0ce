"""Personalised messages to other platforms from the topics: rules choose, templates word, an outbox delivers.

``rules`` reads the rules file, ``matching`` says who is notified of what in an event, ``outbox`` keeps on disk what is
to be sent, ``sending`` sends it by Apprise, ``service`` ties them to the topics.
"""
