"""Segmentation specialists: they outline a task's segment, and say so in words."""
