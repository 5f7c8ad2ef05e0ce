"""What makes a release and checks the workflows; not in the wheel."""
