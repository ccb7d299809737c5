"""Who is there: one set over all processes, as Phoenix tells it (`presence_state`, `presence_diff`).

Each process owns the entries of its own clients and tells the others of each change, numbered, by the waker's news. Who misses
a number asks for all of them. A process that is not heard for PEER_S is gone, and its entries with it.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from api.feed.messages import NOWHERE, Frame, Message
from api.parts import Parts
from api.socket.protocol import frames
from ledger import waker

BEAT_S = 2.0
PEER_S = 7.0
"""Three beats and a pause: a killed process's people are gone within ten seconds."""
GATHER_S = 0.05
"""Changes of so long go out as one: when a thousand come back at once, each would be told to a thousand."""
PRESENT_MAX = 2_000
"""On one topic. Whoever comes then sees who is there and is not shown: the state is a frame, and 300 KiB by then."""
ENTRIES_PER_NEWS = 20
"""Of about 200 bytes: within what one piece of news may have."""
NEWS_AT_ONCE = 100
PORTIONS_S = 0.1
"""Between two portions of NEWS_AT_ONCE when all entries are told, so that the waker, which keeps 1,000 of them, loses none."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One client on one topic. `ref` is unique for ever."""

    ref: str
    tenant_id: UUID
    topic: str
    key: str
    online_at: int  # seconds since 1970


class News(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of `process`, whose `version` counts its changes. `parts`: it is the n-th of so many that together are all its entries."""

    process: str
    version: int
    came: list[Entry] = []
    went: list[str] = []
    parts: tuple[int, int] | None = None
    wants: str | None = None  # the process of which it missed something


class _Topic(NamedTuple):
    tenant_id: UUID
    name: str


class Watcher:
    """A client on a topic, to be told who comes and goes."""

    __slots__ = ("deliver", "encode", "key", "ref", "topic")

    def __init__(
        self,
        tenant_id: UUID,
        topic: str,
        key: str,
        encode: Callable[[Message, str], Frame],
        deliver: Callable[[Frame], None],
    ) -> None:
        self.topic = _Topic(tenant_id, topic)
        self.key = key
        self.encode = encode
        self.deliver = deliver
        self.ref: str | None = None  # of its entry, if it has one


class _Peer:
    """Another process, as far as it is known."""

    def __init__(self) -> None:
        self.version = -1  # of what is known of it
        self.heard_at = 0.0
        self.refs: set[str] = set()
        self.parts: dict[int, list[Entry]] = {}
        self.parts_version = -1


_decode = msgspec.json.Decoder(News).decode


class Presence:
    """One an application. Touched by the event loop's thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._process = secrets.token_hex(8)
        self._version = 0
        self._entries: dict[str, Entry] = {}  # of all processes
        self._by_topic: dict[_Topic, dict[str, Entry]] = defaultdict(dict)
        self._own: set[str] = set()
        self._watchers: dict[_Topic, dict[Watcher, None]] = defaultdict(dict)
        self._peers: dict[str, _Peer] = {}
        self._came: list[Entry] = []  # not told to watchers yet
        self._went: list[Entry] = []
        self._unsaid: tuple[list[Entry], list[str]] = ([], [])  # not told to other processes yet
        self._gathering: asyncio.TimerHandle | None = None
        self._saying_all: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe = parts.waker.hear(self._hear)

    def __len__(self) -> int:
        """Entries of all processes."""
        return len(self._entries)

    # Clients of this process

    def join(self, watcher: Watcher) -> bytes:
        """It is there from now on. Gives the payload of its `presence_state`."""
        if self._task is None:
            self._task = asyncio.create_task(self._beat(), name="presence-beat")
        self._watchers[watcher.topic][watcher] = None
        if len(self._by_topic[watcher.topic]) < PRESENT_MAX:
            watcher.ref = secrets.token_urlsafe(12)
            entry = Entry(watcher.ref, *watcher.topic, watcher.key, int(time.time()))
            self._own.add(entry.ref)
            self._unsaid[0].append(entry)
            self._add(entry)
        return frames.encoded(_shown(self._by_topic[watcher.topic].values()))

    def leave(self, watcher: Watcher) -> None:
        watchers = self._watchers[watcher.topic]
        watchers.pop(watcher, None)
        if not watchers:
            del self._watchers[watcher.topic]
        if watcher.ref is not None:
            self._own.discard(watcher.ref)
            self._unsaid[1].append(watcher.ref)
            self._remove(watcher.ref)
        if not self._by_topic[watcher.topic]:
            del self._by_topic[watcher.topic]

    async def close(self) -> None:
        """The others are told that everybody here has gone."""
        tasks = [task for task in (self._task, self._saying_all) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flush()
        self._unsubscribe()
        self._unsubscribe = lambda: None

    # Entries

    def _add(self, entry: Entry) -> None:
        if entry.ref not in self._entries:
            self._entries[entry.ref] = entry
            self._by_topic[_Topic(entry.tenant_id, entry.topic)][entry.ref] = entry
            self._came.append(entry)
            self._gather()

    def _remove(self, ref: str) -> None:
        entry = self._entries.pop(ref, None)
        if entry is None:
            return
        topic = _Topic(entry.tenant_id, entry.topic)
        del self._by_topic[topic][ref]
        if not self._by_topic[topic] and topic not in self._watchers:
            del self._by_topic[topic]
        self._went.append(entry)
        self._gather()

    def _gather(self) -> None:
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        """Tell watchers and other processes what has changed."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        # Who went and was heard of again is there, and who came and went is not: clients add those who join, then take those
        # away who leave.
        came = {entry.ref: entry for entry in self._came if entry.ref in self._entries}.values()
        went = [entry for entry in self._went if entry.ref not in self._entries]
        self._came, self._went = [], []
        changed: dict[_Topic, tuple[list[Entry], list[Entry]]] = defaultdict(lambda: ([], []))
        for index, entries in enumerate((came, went)):
            for entry in entries:
                changed[_Topic(entry.tenant_id, entry.topic)][index].append(entry)
        for topic, (joins, leaves) in changed.items():
            self._tell(topic, joins, leaves)
        self._say_changes()

    def _tell(self, topic: _Topic, joins: Sequence[Entry], leaves: Sequence[Entry]) -> None:
        watchers = self._watchers.get(topic)
        if not watchers:
            return
        data = frames.encoded({"joins": _shown(joins), "leaves": _shown(leaves)})
        message = Message(NOWHERE, "", "presence_diff", (topic.name,), data)
        for watcher in tuple(watchers):
            watcher.deliver(message.frame(watcher.encode, topic.name))

    # Other processes

    def _say_changes(self) -> None:
        """After all entries, if they are being told: their parts are of one version, and changes follow in order."""
        if self._saying_all is not None and not self._saying_all.done():
            return
        came, went = self._unsaid
        self._unsaid = ([], [])
        gone = set(went)
        came = [entry for entry in came if entry.ref not in gone]
        while came or went:
            some, came = came[:ENTRIES_PER_NEWS], came[ENTRIES_PER_NEWS:]
            left, went = went[: ENTRIES_PER_NEWS * 5], went[ENTRIES_PER_NEWS * 5 :]
            self._version += 1
            self._say(News(self._process, self._version, some, left))

    def _say(self, news: News) -> None:
        text = frames.encoded(news).decode()
        assert len(text) <= waker.NEWS_BYTES_MAX
        self._parts.waker.say(text)

    def _begin_saying_all(self) -> None:
        """Whoever asks while it is under way, and misses a part, asks again at the next beat."""
        if self._saying_all is None or self._saying_all.done():
            self._flush()  # so that the version is that of what follows
            own = [self._entries[ref] for ref in self._own]
            self._saying_all = asyncio.create_task(self._say_all(own, self._version), name="presence-all")

    async def _say_all(self, own: list[Entry], version: int) -> None:
        parts = [own[at : at + ENTRIES_PER_NEWS] for at in range(0, len(own), ENTRIES_PER_NEWS)] or [[]]
        for n, some in enumerate(parts):
            self._say(News(self._process, version, some, parts=(n, len(parts))))
            if (n + 1) % NEWS_AT_ONCE == 0:
                await asyncio.sleep(PORTIONS_S)
        self._saying_all = None
        self._say_changes()

    def _hear(self, text: str) -> None:
        try:
            news = _decode(text)
        except msgspec.DecodeError:
            return  # a newer release's
        if news.wants is not None:
            if news.wants == self._process:
                self._begin_saying_all()
            return
        peer = self._peers.setdefault(news.process, _Peer())
        peer.heard_at = time.monotonic()
        if self._task is None:
            self._task = asyncio.create_task(self._beat(), name="presence-beat")
        if news.parts is not None:
            self._take_part(peer, news, *news.parts)
        elif news.came or news.went:
            self._take_change(peer, news)
        elif news.version != peer.version:
            self._say(News(self._process, self._version, wants=news.process))

    def _take_change(self, peer: _Peer, news: News) -> None:
        if news.version != peer.version + 1 or peer.version < 0:
            if news.version > peer.version:
                self._say(News(self._process, self._version, wants=news.process))
            return
        peer.version = news.version
        for ref in news.went:
            peer.refs.discard(ref)
            self._remove(ref)
        for entry in news.came:
            peer.refs.add(entry.ref)
            self._add(entry)

    def _take_part(self, peer: _Peer, news: News, n: int, of: int) -> None:
        if news.version < peer.version:
            return
        if news.version != peer.parts_version:
            peer.parts, peer.parts_version = {}, news.version
        peer.parts[n] = news.came
        if len(peer.parts) == of:
            entries = {entry.ref: entry for some in peer.parts.values() for entry in some}
            peer.parts, peer.version = {}, news.version
            for ref in peer.refs - entries.keys():
                self._remove(ref)
            for entry in entries.values():
                self._add(entry)
            peer.refs = set(entries)

    async def _beat(self) -> None:
        """Others are told that this process lives, and those that do not are forgotten."""
        while True:
            self._say(News(self._process, self._version))
            await asyncio.sleep(BEAT_S)
            now = time.monotonic()
            for process, peer in tuple(self._peers.items()):
                if now - peer.heard_at > PEER_S:
                    del self._peers[process]
                    for ref in peer.refs:
                        self._remove(ref)


def _shown(entries: Iterable[Entry]) -> dict[str, Any]:
    """By key, the metas of each."""
    shown: dict[str, Any] = {}
    for entry in entries:
        meta = {"phx_ref": entry.ref, "online_at": entry.online_at}
        shown.setdefault(entry.key, {"metas": []})["metas"].append(meta)
    return shown
