"""Worlds that are made up from published models: what holds in them is known, and nothing in them is a patient."""
