"""The codes with which the command ends; docs/troubleshooting.md explains them."""

FAILED = 1
"""The run failed, or the doctor found a problem; also for a fault of raypipe's own."""
WRONG_INPUT = 2
"""What was given can't be used: options, a config, a manifest, a file that isn't there."""
SURROUNDINGS = 3
"""Something around the command is away or refuses: storage, credentials, rights, a disk, Ray, another run at work."""
INTERRUPTED = 130
"""Someone pressed Ctrl-C."""

AGAIN = "Then give the command again: what is finished is kept"
"""The way out of what passes or can be mended elsewhere."""

Found = tuple[str, int] | None
"""What a rule says of an error: a text that ends with a way out, and the code. None where it knows nothing."""
