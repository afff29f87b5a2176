"""A cohort answered from a list, here or, row by row, by whatever maps a function over rows."""
