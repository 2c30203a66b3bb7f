"""Thin adapters between Kopf and the loop."""
