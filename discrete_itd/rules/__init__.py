"""Rules that a table obeys: found on one half of its rows, judged on the other, checked on new ones, and as code."""
