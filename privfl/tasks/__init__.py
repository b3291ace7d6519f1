"""What a site can be asked: schemas, a site's rows, and the question that one slot sums an answer to.

Learning (:mod:`privfl.learn`) is one family of questions; other distributions add theirs through entry points
(:mod:`privfl.tasks.plugins`).
"""

from privfl.tasks.binding import BindReport, BoundData, beyond_records, bind
from privfl.tasks.data import DatabaseSource, FileSource, FrameSource, SiteData, Source
from privfl.tasks.question import Price, Question, Sum, column_uses, costs_of
from privfl.tasks.schema import Category, Class, Column, Numeric, Schema, Text

__all__ = [
    "BindReport",
    "BoundData",
    "Category",
    "Class",
    "Column",
    "DatabaseSource",
    "FileSource",
    "FrameSource",
    "Numeric",
    "Price",
    "Question",
    "Schema",
    "SiteData",
    "Source",
    "Sum",
    "Text",
    "beyond_records",
    "bind",
    "column_uses",
    "costs_of",
]
