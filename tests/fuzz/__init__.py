"""Coverage-guided fuzzing of what a stranger can reach: bytes as a message, and bytes as HTTP."""
