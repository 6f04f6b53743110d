"""Answers from retrieved passages: quoted or generated, each claim cited, nothing in a passage obeyed."""
