"""A page at /live on which whoever logs in sees sales arrive: what `scripts/demo` shows, and a sample of the client `clients/js`.

The files beside this one are served as they are. `client/` is that client as it is compiled; a test holds it to its source.
"""
