"""The feed over a WebSocket that speaks plain JSON, for clients without Phoenix (docs/realtime.md)."""
