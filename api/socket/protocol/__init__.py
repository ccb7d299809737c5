"""A connection of Phoenix Channels free of I/O: frames in, frames and effects out."""
