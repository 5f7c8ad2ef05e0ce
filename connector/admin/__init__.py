"""What the commands do: diagnosis, backlog of a detached journal, a configuration to begin with."""
