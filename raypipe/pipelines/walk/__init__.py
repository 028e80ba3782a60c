"""The search for a setting of the walk: a grid or samplers' trials, and how a setting is scored."""
