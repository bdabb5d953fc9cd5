"""Readers of the official file formats, knowing neither tasks nor models.

Each reader takes a path and gives rows with their line numbers; a malformed file raises `InputError` with file and
line. All of them read UTF-8, split lines at line feeds only, drop the carriage return of CRLF files and a byte-order
mark at the start of the file; nothing else in the text is touched.
"""
