"""What only a store in NATS JetStream meets: full streams, streams of others, servers that go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme
from structlog.testing import capture_logs

from integration import nats_tools as tools
from integration.nats_cluster import NatsCluster
from integration.nats_servers import Nats
from integration.proxy import Proxy, proxy
from tests.store import test_store_contract as contract
from triggerhub.connector import InboxFull, Position, PositionConflict
from triggerhub.event import Event
from triggerhub.store.jetstream.store import JetStreamStore
from triggerhub.store.records import DeadLetter, Selection, StoreError

EVERYTHING = Selection()


def letter(size: int = 10, **fields: Any) -> DeadLetter:
    return replace(
        contract._letter(event=Event(id="1", source="s", type="t", data=bytes(size))), **fields
    )


def refused(url: str, **options: Any) -> str:
    """Why a store cannot be used."""

    async def use() -> str:
        async with asyncio.timeout(30), JetStreamStore(url, **options) as store:
            while True:
                try:
                    await store.dead_letters.list(EVERYTHING)
                except StoreError as error:
                    if "not said yet" not in str(error):
                        return str(error)

    return asyncio.run(use())


class TestTrouble:
    async def test_a_full_stream_refuses_letters_and_loses_none(self, nats: Nats) -> None:
        url = f"nats://{nats.server}?prefix=f{uuid4().hex[:8]}&deadLetters=64Ki&inbox=64Ki"
        stored: list[DeadLetter] = []
        async with JetStreamStore(url) as store:

            async def fill() -> None:
                while len(stored) < 20:
                    one = letter(10_000)
                    await store.dead_letters.add(one)
                    stored.append(one)

            async def put() -> None:
                for number in range(20):
                    await store.inbox("a.b.c").put(replace(letter(10_000).event, id=f"{number}"))

            with pytest.raises(StoreError, match="full: maximum bytes exceeded"):
                await fill()
            assert len(stored) > 3
            assert await store.dead_letters.list(EVERYTHING) == stored
            with pytest.raises(InboxFull, match="maximum bytes"):
                await put()
            await store.dead_letters.delete(EVERYTHING)
            await store.dead_letters.add(letter(10_000))

    async def test_a_stream_that_is_deleted_is_made_anew(self, nats: Nats, url: str) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        async with JetStreamStore(url) as store:
            await store.dead_letters.add(letter())
            async with tools.jetstream(nats.server) as context:
                await context.delete_stream(f"{prefix}-dead-letters")
                await context.delete_stream(f"KV_{prefix}-positions")
            one = letter()
            await store.dead_letters.add(one)
            assert await store.dead_letters.list(EVERYTHING) == [one]
            assert await store.positions("a.b.c").load() == {}

    async def test_what_a_killed_server_had_confirmed_is_there_and_nothing_twice(
        self, own_nats: Nats
    ) -> None:
        url = f"nats://{own_nats.server}?deadLetters=64Mi&inbox=64Mi"
        stored: list[DeadLetter] = []
        done = asyncio.Event()

        async def fill(store: JetStreamStore) -> None:
            positions = store.positions("a.b.c")
            while not done.is_set():
                one = letter(2_000)
                with suppress(StoreError):
                    await store.dead_letters.add(one)
                    stored.append(one)
                    kept = (await positions.load()).get("n", Position("0", 0))
                    count = str(int(kept.value) + 1)
                    await positions.save("n", count, expect=kept.revision)

        async with JetStreamStore(url) as store:
            filling = [asyncio.create_task(fill(store)) for _ in range(3)]
            for _ in range(3):
                before = len(stored)
                async with asyncio.timeout(60):
                    while len(stored) < before + 20:
                        await asyncio.sleep(0.01)
                await asyncio.to_thread(own_nats.kill9)
                await asyncio.to_thread(own_nats.start)
            done.set()
            results = await asyncio.wait_for(asyncio.gather(*filling, return_exceptions=True), 60)
            # Of those that count together one wins each time.
            assert all(found is None or isinstance(found, PositionConflict) for found in results)
            found = [one.id for one in await store.dead_letters.list(EVERYTHING, limit=100_000)]
        assert sorted(one.id for one in stored) == [
            each for each in found if each in {one.id for one in stored}
        ]

    def test_three_servers_of_which_one_is_killed_lose_nothing_and_count_right(
        self, tmp_path: Path
    ) -> None:
        """What was done twice, or not, would show in the counter."""
        cluster = NatsCluster(tmp_path)
        url = f"nats://{cluster.server}?replicas=3&deadLetters=64Mi&inbox=64Mi"
        stored: list[DeadLetter] = []
        raised = [0]
        unsure = [0]
        done = asyncio.Event()

        async def work(store: JetStreamStore) -> None:
            positions = store.positions("a.b.d")
            while not done.is_set():
                one = letter(2_000)
                try:
                    await store.dead_letters.add(one)
                    stored.append(one)
                    kept = (await positions.load()).get("n", Position("0", 0))
                except StoreError:
                    continue
                try:
                    count = str(int(kept.value) + 1)
                    await positions.save("n", count, expect=kept.revision)
                    raised[0] += 1
                except StoreError:
                    unsure[0] += 1
                except PositionConflict:
                    pass

        async def story() -> None:
            async with JetStreamStore(url) as one, JetStreamStore(url) as two:
                # While all is well, too: servers that replicate have words of their own for it.
                await contract.TestPositions().test_of_many_at_once_one_wins_each_revision(one, two)
                async with asyncio.TaskGroup() as tasks:
                    for store in (one, two):
                        tasks.create_task(work(store))
                    for stream in ("KV_triggerhub-positions", "triggerhub-dead-letters"):
                        await more(20)
                        # Of a stream that has one: after a restart that takes a moment.
                        async with asyncio.timeout(60):
                            while not (leader := await asyncio.to_thread(cluster.leader, stream)):
                                await asyncio.sleep(0.1)
                        node = cluster.nodes[leader]
                        await asyncio.to_thread(node.kill9)
                        await more(20)
                        await asyncio.to_thread(node.start)
                    done.set()
                found = await one.dead_letters.list(EVERYTHING, limit=100_000)
                assert {each.id for each in stored} <= {each.id for each in found}
                count = int((await two.positions("a.b.d").load())["n"].value)
                assert raised[0] <= count <= raised[0] + unsure[0]

        async def more(number: int) -> None:
            before = raised[0]
            async with asyncio.timeout(90):
                while raised[0] < before + number:
                    await asyncio.sleep(0.01)

        with cluster.started(), capture_logs() as logs:
            asyncio.run(story())
        assert "store.servers_too_old" not in {entry["event"] for entry in logs}

    def test_servers_that_answer_nothing_are_told_of_within_seconds(
        self, nats: Nats, url: str
    ) -> None:
        async def add(between: Proxy) -> None:
            async with JetStreamStore(url.replace(nats.server, between.address)) as store:
                await store.dead_letters.add(letter())
                between.hold()
                async with asyncio.timeout(30):
                    with pytest.raises(StoreError, match="JetStream does not answer"):
                        await store.dead_letters.add(letter())
                between.release()
                one = letter()
                async with asyncio.timeout(30):
                    while True:
                        with suppress(StoreError):
                            await store.dead_letters.add(one)
                            break
                assert one in await store.dead_letters.list(EVERYTHING)

        with proxy() as between:
            between.to(nats.server)
            asyncio.run(add(between))

    def test_a_letter_that_is_being_stored_in_pieces_outlasts_a_purge(
        self, nats: Nats, url: str
    ) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        name, large = f"{prefix}-dead-letters", letter(3_000_000)

        async def purge(between: Proxy) -> None:
            async with (
                tools.jetstream(nats.server) as context,
                JetStreamStore(url) as store,
                JetStreamStore(url.replace(nats.server, between.address)) as slow,
            ):
                await slow.dead_letters.counts()
                between.latency = 0.2
                adding = asyncio.create_task(slow.dead_letters.add(large))
                # The first piece comes last.
                while (await context.stream_info(name)).state.messages < 2:
                    await asyncio.sleep(0.01)
                assert await store.dead_letters.list(EVERYTHING) == []
                assert await store.dead_letters.delete(EVERYTHING) == (0, 0)
                between.latency = 0.0
                await adding
                assert await store.dead_letters.list(EVERYTHING) == [large]
                assert await store.dead_letters.delete(EVERYTHING) == (1, 0)
                assert (await context.stream_info(name)).state.messages == 0

        with proxy() as between:
            between.to(nats.server)
            asyncio.run(purge(between))

    async def test_large_entries_of_an_inbox_leave_nothing_behind(
        self, nats: Nats, url: str
    ) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        async with JetStreamStore(url) as store:
            inbox = store.inbox("a.b.c")
            put = await inbox.put(letter(3_000_000).event)
            (entry,) = await inbox.read()
            assert entry.event.data == bytes(3_000_000)
            await inbox.remove([put.number])
            async with tools.jetstream(nats.server) as context:
                assert (await context.stream_info(f"{prefix}-inbox")).state.messages == 0

    async def test_damaged_entries_of_an_inbox_stop_nothing_behind_them(
        self, nats: Nats, url: str
    ) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        async with JetStreamStore(url) as store, tools.jetstream(nats.server) as context:
            inbox = store.inbox("a.b.c")
            await inbox.put(letter(3_000_000).event)
            stream = f"{prefix}-inbox"
            first = await context.get_msg(stream, 1)
            assert first.subject is not None
            await context.delete_msg(stream, 1)  # a further piece: the first one comes last
            await context.publish(f"{prefix}.inbox.entry.a.b.c.4.x", b"\xff{\nx")
            await inbox.put(letter(10).event)
            lacking, garbage, good = await inbox.read()
            assert lacking.event.fault is not None
            assert "is missing" in lacking.event.fault
            assert len(lacking.event.data) > 1_000_000
            assert garbage.event.fault is not None
            assert garbage.event.data == b"x"
            assert good.event == letter(10).event
            await inbox.remove([lacking.number, garbage.number, good.number])
            assert (await context.stream_info(stream)).state.messages == 0


def test_a_save_whose_answer_was_lost_is_done_once(nats: Nats, url: str) -> None:
    async def save(between: Proxy) -> None:
        async with JetStreamStore(url.replace(nats.server, between.address)) as store:
            positions = store.positions("a.b.c")
            revision = 0
            for number in range(9):
                # The answer is under way when the connection ends.
                between.latency = 0.05 if number % 3 == 1 else 0.0
                saving = asyncio.create_task(positions.save("n", f"{number}", expect=revision))
                if between.latency:
                    await asyncio.sleep(0.08)
                    await asyncio.to_thread(between.cut)
                    between.latency = 0.0
                # Not a conflict with itself, and not another revision than the stored one.
                revision = await saving
                assert (await positions.load())["n"] == Position(f"{number}", revision)

    with proxy() as between:
        between.to(nats.server)
        asyncio.run(save(between))


class TestConfiguration:
    async def test_another_size_and_age_are_respected_and_said(
        self, nats: Nats, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        subjects = [f"{prefix}.dead-letters.>"]
        async with tools.jetstream(nats.server) as context:
            await context.add_stream(
                name=f"{prefix}-dead-letters", subjects=subjects, max_age=3600.0, discard="new"
            )
        async with JetStreamStore(url) as store:
            await store.dead_letters.add(letter())
        assert "store.stream_differs" in capsys.readouterr().out
        async with tools.jetstream(nats.server) as context:
            config = (await context.stream_info(f"{prefix}-dead-letters")).config
        assert config.max_age == 3600.0

    def test_one_that_would_lose_something_is_refused(self, nats: Nats, url: str) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        asyncio.run(
            tools.create_stream(nats.server, f"{prefix}-dead-letters", f"{prefix}.dead-letters.>")
        )
        said = refused(url)
        assert f"stream {prefix}-dead-letters is there with discard 'old', expected 'new'" in said

    def test_replicas_without_a_cluster_are_refused_in_words(self, nats: Nats) -> None:
        said = refused(f"nats://{nats.server}?prefix=r{uuid4().hex[:8]}&replicas=3")
        assert "replicas > 1 not supported in non-clustered mode" in said

    def test_reading_alone_creates_nothing(self, nats: Nats, url: str) -> None:
        prefix = url.partition("prefix=")[2].partition("&")[0]
        assert f"stream KV_{prefix}-positions does not exist" in refused(url, read_only=True)

    def test_a_server_without_jetstream_is_told(self, tmp_path: Path) -> None:
        with Nats(tmp_path, jetstream=False).started() as server:
            said = refused(f"nats://{server.server}")
        assert "the servers have no JetStream for this account" in said

    def test_an_account_needs_what_the_documents_say(self, tmp_path: Path) -> None:
        server = Nats(
            tmp_path,
            """authorization { users: [{ user: hub, password: pw, permissions: {
                publish: ["$JS.API.STREAM.>", "shop.>", "$KV.shop-positions.>",
                          "$KV.shop-claims.>", "$KV.shop-once.>"],
                subscribe: ["_INBOX.>"] } },
              { user: less, password: pw, permissions: {
                publish: ["$JS.API.STREAM.INFO.>"], subscribe: ["_INBOX.>"] } }] }""",
        )
        url = f"nats://{server.server}?prefix=shop&deadLetters=64Mi&inbox=64Mi"
        environ = {"TRIGGERHUB_STORE_USER": "hub", "TRIGGERHUB_STORE_PASSWORD": "pw"}

        async def use() -> None:
            async with JetStreamStore(url, environ=environ) as store:
                await store.dead_letters.add(letter())
                await store.dead_letters.delete(EVERYTHING)
                await store.positions("a.b.c").save("k", "v")
                assert await store.positions("a.b.c").claim("k", 30.0)
                put = await store.inbox("a.b.c").put(letter().event, once="k", window=10.0)
                await store.inbox("a.b.c").remove([put.number])
                assert await store.journal.find("1") == []

        with server.started():
            less = environ | {"TRIGGERHUB_STORE_USER": "less"}
            assert "stream.create" in refused(url, environ=less)
            asyncio.run(use())

    def test_mutual_tls_and_a_token_by_the_environment(self, tmp_path: Path) -> None:
        authority, own = trustme.CA(), tmp_path / "server.pem"
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(own))
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        hub = authority.issue_cert("hub")
        hub.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        server = Nats(
            tmp_path,
            f'tls {{ cert_file: "{own}", key_file: "{own}", ca_file: "{tmp_path / "ca.pem"}", '
            'verify: true }\nauthorization { token: "s3same" }',
        )
        url = f"tls://{server.server}?deadLetters=64Mi&inbox=64Mi"
        environ = {
            "TRIGGERHUB_STORE_TOKEN": "s3same",
            "TRIGGERHUB_STORE_CA_FILE": str(tmp_path / "ca.pem"),
            "TRIGGERHUB_STORE_CERTIFICATE": hub.cert_chain_pems[0].bytes().decode(),
            "TRIGGERHUB_STORE_KEY_FILE": str(tmp_path / "key.pem"),
        }

        async def use() -> None:
            async with JetStreamStore(url, environ=environ) as store:
                await store.dead_letters.add(letter())

        with server.started():
            asyncio.run(use())
            others = environ | {"TRIGGERHUB_STORE_TOKEN": "open"}
            assert "refuses the login" in refused(url, environ=others)
            strange = environ | {"TRIGGERHUB_STORE_CA": trustme.CA().cert_pem.bytes().decode()}
            del strange["TRIGGERHUB_STORE_CA_FILE"]
            assert "certificate is refused" in refused(url, environ=strange)
