"""A tenant's stream as its people may see it, live and resumable (docs/realtime.md).

stream ─► tail (one a tenant and process, however many listeners) ─► rows that the batch touched, once the views have
reached it ─► messages with their topics ─► frames, encoded once per encoding ─► the listeners' bounded buffers
"""
