"""What make_golden.py is made of: bases, cases and the formulas in double precision."""
