"""What is accepted and not yet published: durable, bounded, in order."""
