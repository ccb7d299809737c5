"""Tells the subscriptions of this process at once that a tenant's stream moved. A hint: who must not miss it polls as well."""

import threading
from uuid import UUID
from weakref import WeakSet

_lock = threading.RLock()  # not a Lock: the collector may stop a forgotten subscription while it is held
_listeners: dict[
    UUID, WeakSet[threading.Event]
] = {}  # by tenant, under the lock: all applications of the process share it


def listen(tenant_id: UUID, event: threading.Event) -> None:
    """Set `event` whenever the stream moves, until `unlisten` or until nobody holds it any more."""
    with _lock:
        _listeners.setdefault(tenant_id, WeakSet()).add(event)


def unlisten(tenant_id: UUID, event: threading.Event) -> None:
    """Doing it again changes nothing."""
    with _lock:
        events = _listeners.get(tenant_id)
        if events is not None:
            events.discard(event)
            if not events:
                del _listeners[tenant_id]


def moved(tenant_id: UUID) -> None:
    """Called after the commit."""
    with _lock:
        for event in tuple(_listeners.get(tenant_id, ())):
            event.set()
