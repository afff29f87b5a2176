"""Measuring the product on labelled cases."""
