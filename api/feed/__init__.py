"""The tenant's stream as the caller may see it, live and resumable.

stream ─► tail (one a tenant and process, however many listeners) ─► rows that the batch touched, once the views have
reached it ─► messages (encoded once) ─► the listeners' bounded queues ─► SSE
"""
