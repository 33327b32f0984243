"""Adaptation as pure functions over parameter dicts."""
