"""The study of the CemoBAM paper (2025): its blocks, its published figures, its claims, as data."""

from study.papers.cemobam.paper import blocks

__all__ = ["blocks"]
