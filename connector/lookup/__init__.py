"""Where a message is: in which topic, partition and offset; in the journal; a dead letter, and why; or nowhere."""
