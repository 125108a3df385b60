"""The report of a run: one page that holds everything it shows.

`gather` makes `facts` of a run, plain numbers and words; `page` draws them. What comes
from data (names of classes, files and commands) is text and nothing else.
"""
