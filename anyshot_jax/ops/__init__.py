"""Published formulas on the arrays of one example or episode."""
