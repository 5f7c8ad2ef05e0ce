"""The oracle: an independent sender, an independent consumer, and checks of what both of them wrote down.

It knows the connector by its documents alone and imports nothing of it::

    python -m tests.faults --list
    python -m tests.faults --scenario mixed --seed 7
"""
