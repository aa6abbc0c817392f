"""Health of the whole: a page for monitors, and findings with remedies for operators.

Both look at everything in threads of their own, since a frozen server would hold them up for ever.
"""
