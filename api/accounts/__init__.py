"""Accounts over HTTP: one module for each use."""
