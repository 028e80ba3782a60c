"""What is done of a run, what it would compute now and why."""
