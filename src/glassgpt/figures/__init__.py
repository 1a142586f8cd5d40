"""Arrays in, matplotlib figures out: every drawing function returns its `Figure` and shows nothing.

`states` holds the plain data behind the state graph, which a web page draws too; `files` writes a figure to disk.
"""
