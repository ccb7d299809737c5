"""Phoenix Channels: what the npm package `phoenix` talks to (docs/realtime.md).

`protocol` is the connection as a state machine without I/O; everything else here is what carries its frames and effects.
"""
