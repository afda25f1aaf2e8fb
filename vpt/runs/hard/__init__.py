"""Queries that have to be real tokens: where they are chosen among, the search, and the run."""
