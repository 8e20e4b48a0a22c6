"""Records from files, and the ids that models read.

Begin with `records`. `reading` turns files into records by one of `readers/`, kept in a `store`; `source` serves them,
`mixture` several together; `quality/` leaves records out; `templates` lays conversations out, `encoding` makes tokens.
"""
