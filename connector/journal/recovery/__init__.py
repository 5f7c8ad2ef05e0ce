"""What can be read of a damaged journal, saved into a new one."""
