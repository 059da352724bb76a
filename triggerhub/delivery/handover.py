"""What must be written elsewhere before an event is settled: its dead letter, or the answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from triggerhub.connector import NotTaken
from triggerhub.delivery.course import evidence_fields
from triggerhub.delivery.encoding import encode_binary, head_prefix
from triggerhub.delivery.problems import Problems
from triggerhub.delivery.target import Target
from triggerhub.delivery.transport import Away, BrokenReply, NoReply, Transport, parse_endpoint
from triggerhub.delivery.waits import Waits
from triggerhub.event import EMPTY, Event, Origin, Reply
from triggerhub.store.records import DeadLetter, Elsewhere, Store, StoreError

log = structlog.get_logger(__name__)


class Handover:
    """Of one binding. What cannot be written now is written later, however long that takes: its
    event waits, and a problem says why."""

    def __init__(
        self,
        agent: str,
        transport: Transport,
        store: Store,
        waits: Waits,
        problems: Problems,
        aimed: Callable[[], Target],
    ) -> None:
        """``aimed`` gives the target as it is now, or raises ``GivenBack``."""
        self._agent = agent
        self._send = transport.send
        self._store = store
        self._waits = waits
        self._problems = problems
        self._aimed = aimed

    async def bury(self, letter: DeadLetter) -> None:
        """Returns when the dead letter is safe. Raises ``GivenBack``."""

        async def write() -> None:
            nonlocal letter
            target = self._aimed()
            # A letter that has got there is not written again while its entry waits for the disk.
            if letter.elsewhere is None and (url := target.dead_letter_url) is not None:
                request = self._request(url, letter)
                if request is not None:
                    return await self._post(url, *request)
            elif letter.elsewhere is None and target.letters is not None:
                letter = _entry(letter, await target.letters.lay_down(letter))
            try:
                await self._store.dead_letters.add(letter)
            except StoreError as error:
                raise NotTaken(str(error)) from error

        def told(trouble: NotTaken) -> tuple[str, str]:
            text = f"dead letters cannot be stored, so their events wait: {trouble}"
            return "DeadLetterUnavailable", text

        await self._until_written(write, told)

    async def answer(self, event: Event, reply: Reply) -> None:
        """Returns when the function's answer is where its trigger wants it. Raises
        ``GivenBack``."""

        async def write() -> None:
            replies = self._aimed().replies
            if replies is not None and reply.body:
                await replies.reply(event, reply)

        def told(trouble: NotTaken) -> tuple[str, str]:
            reason = "ReplyRefused" if trouble.refused else "ReplyUnavailable"
            return reason, f"answers cannot be written, so their events wait: {trouble}"

        await self._until_written(write, told)

    async def _until_written(
        self, write: Callable[[], Awaitable[None]], told: Callable[[NotTaken], tuple[str, str]]
    ) -> None:
        tries = 0
        with self._problems.while_it_lasts() as tell:
            while True:
                try:
                    return await write()
                except NotTaken as trouble:
                    tell(*told(trouble))
                tries += 1
                await self._waits.pause(self._aimed().retry.wait(tries, random.random))

    def _request(self, url: str, letter: DeadLetter) -> tuple[bytes, bytes] | None:
        """None: it cannot be one, and that may be why it died. The store takes it."""
        endpoint = parse_endpoint(url)
        prefix = head_prefix(endpoint.path, endpoint.host_header, self._agent)
        try:
            return encode_binary(prefix, letter.event, 1, _header_fields(letter))
        except Exception as error:  # noqa: BLE001 - any would end the hub, each time it comes
            log.warning(
                "dead_letter.unfit", url=url, event_id=letter.event.id, error=repr(error),
                message="it cannot be sent to the dead letter URL, so the hub's store keeps it",
            )  # fmt: skip
            return None

    async def _post(self, url: str, head: bytes, body: bytes) -> None:
        endpoint = parse_endpoint(url)
        try:
            reply = await self._send(endpoint, head, body, self._aimed().timeout)
        except (Away, NoReply, BrokenReply) as error:
            raise NotTaken(f"{url}: {error}") from error
        if not 200 <= reply.status < 300:
            raise NotTaken(f"{url}: status {reply.status}")


def _entry(letter: DeadLetter, elsewhere: Elsewhere) -> DeadLetter:
    """What the store keeps of a letter that lies elsewhere."""
    event = replace(letter.event, data=b"", extensions=EMPTY)
    return replace(letter, event=event, origin=Origin(), elsewhere=elsewhere)


def _header_fields(letter: DeadLetter) -> str:
    return "".join(
        f"triggerhub-{name}: {value.encode('ascii', 'replace').decode()}\r\n"
        for name, value in evidence_fields(letter).items()
    )
