"""Imports of tables and of maps: their rows read as a stream, and the account of what came of them."""
