"""Fills the users collection with realistic people: the same ones for the same seed, wherever and whenever it runs."""
