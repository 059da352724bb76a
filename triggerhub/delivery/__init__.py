"""Carry an event along its binding."""
