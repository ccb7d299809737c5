"""Sessions: begin, refresh, end one or all, list. What they stand on besides the events are mutable rows of the append's transaction.

- The refresh token that is good is the owner of a reservation (REFRESH, the session): exchanging it releases the old owner and
  claims the new one, so that of two uses at once one wins.
- What is shown of a session (device, address, last seen) is a secret of the account's, sealed under the account's key.
- Whoever ends all of an account's sessions, or gives it another address, moves its fence (FENCE, the account); whoever begins one
  reads the fence before anything is checked, and it must still be there at the commit. So must it for whoever asks for something
  that appends no event, as another address, and for whoever erases the person.
- Whoever begins a session moves the account's last one (LAST, the account); whoever ends all of them reads it before they are
  listed, and it must still be there at the commit. So no session slips in that was begun with the old password.
"""

from commands.sessions.begin import LoggedIn, refresh, start, tenant_of
from commands.sessions.devices import Device, Open, device, ids, listed
from commands.sessions.ending import Ending, append, end, end_all, ending_all, fence, fenced, moved, unmoved
from commands.sessions.refresh_tokens import RefreshTokenInvalid, RefreshTokenReplayed

__all__ = [
    "Device",
    "Ending",
    "LoggedIn",
    "Open",
    "RefreshTokenInvalid",
    "RefreshTokenReplayed",
    "append",
    "device",
    "end",
    "end_all",
    "ending_all",
    "fence",
    "fenced",
    "ids",
    "listed",
    "moved",
    "refresh",
    "start",
    "tenant_of",
    "unmoved",
]
