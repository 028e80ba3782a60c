"""Presets: YAML overlays of the default config, by name."""
