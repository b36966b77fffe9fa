"""Folders, lists, tables, archives and data sets -> collections: finding images and their labels."""
