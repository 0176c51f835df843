"""The workspace as a page in a browser, which follows what happens."""
