"""Formats of other tools, a folder each: `read` makes a manifest of them, `write` exports masks. No Ray here."""
