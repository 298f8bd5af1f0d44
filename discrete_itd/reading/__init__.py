"""What stands in a table, before any model: the cells of text and of any dtype, tables of any library, files' dialects.

Nothing here needs torch, the schema of a table or a fitted model.
"""
