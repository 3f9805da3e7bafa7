"""Tasksets: rows of ``{"env", "id", "args", ...}`` from modules, data files and the platform.

load      what a name names, as tasks, selected
parts     what a run trains on, and what it holds out
files     one file or directory
modules   rows that a Python module defines
rows      the task that a row is
portable  a row, to be written again
select    by columns, slugs and numbers
"""
