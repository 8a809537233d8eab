"""Reads and inserts that arrive together travel together."""
