"""A real hub passes long bodies on while they come: bounded, in step, and never cut in secret."""

from __future__ import annotations

import hashlib
import http.client
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from integration.function import served
from integration.hub import Hub, function, running, trigger

MIB = 2**20
BLOCK = bytes(range(256)) * 4096  # 1 MiB
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Function(socketserver.ThreadingTCPServer):
    """Answers each path by its script, until that returns False."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.scripts: dict[str, Callable[[Talk], bool]] = {"/": plain}
        self.connections = 0
        self.now = self.most = 0
        """Scripts that run."""
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def counted(self, more: int) -> None:
        with self._lock:
            self.now += more
            self.most = max(self.most, self.now)


class Talk(socketserver.StreamRequestHandler):
    """One connection to the function."""

    server: Function

    def handle(self) -> None:
        self.server.connections += 1
        go_on = True
        while go_on and (line := self.rfile.readline().decode()):
            self.method, path, _ = line.split()
            self.fields = http.client.parse_headers(self.rfile)
            self.server.counted(1)
            try:
                go_on = self.server.scripts[path](self)
            except OSError:
                return
            finally:
                self.server.counted(-1)

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.wfile.write(piece)

    def chunk(self, piece: bytes) -> None:
        self.say(b"%x\r\n%b\r\n" % (len(piece), piece))

    def body(self) -> Iterator[bytes]:
        """As it comes. Raises EOFError where it ends too early."""
        if self.fields.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline() or b"-1", 16):
                if size < 0 or len(piece := self.rfile.read(size + 2)) < size + 2:
                    raise EOFError
                yield piece[:-2]
            self.rfile.readline()
            return
        left = int(self.fields.get("content-length", "0"))
        while left:
            piece = self.rfile.read1(min(left, 65_536))
            if not piece:
                raise EOFError
            left -= len(piece)
            yield piece

    def wait_until_gone(self) -> None:
        assert self.rfile.read(1) == b""


def plain(talk: Talk) -> bool:
    talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    return True


@contextmanager
def staged(folder: Path, *options: str, **delivery: object) -> Iterator[tuple[Hub, Function]]:
    with served(Function()) as server, running(folder, *options, start=False) as hub:
        web = trigger("HTTPTrigger", "web", "f", {"maxBodySize": "1Gi"}, **delivery)
        hub.write("f.yaml", function("f", server.url), web)
        hub.start()
        hub.wait(lambda: hub.condition("web").startswith("True"), "a trigger that is ready")
        yield hub, server


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Function]]:
    with staged(tmp_path_factory.mktemp("streaming")) as made:
        yield made


def connect(hub: Hub) -> http.client.HTTPConnection:
    host, _, port = hub.listen.partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=30.0)


def digest(answer: http.client.HTTPResponse) -> str:
    found = hashlib.sha256()
    while piece := answer.read(MIB):
        found.update(piece)
    return found.hexdigest()


def expected(blocks: int) -> str:
    found = hashlib.sha256()
    for _ in range(blocks):
        found.update(BLOCK)
    return found.hexdigest()


def most_resident(hub: Hub) -> float:
    """MB, since it started."""
    for line in Path(f"/proc/{hub.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def in_flight(hub: Hub) -> int:
    return hub.accounts()["default.web.f"].in_flight


def sized(blocks: int) -> Callable[[Talk], bool]:
    def script(talk: Talk) -> bool:
        talk.say(SIZED % (blocks * MIB))
        talk.say(*[BLOCK] * blocks)
        return True

    return script


def chunked(blocks: int) -> Callable[[Talk], bool]:
    def script(talk: Talk) -> bool:
        talk.say(CHUNKED)
        for _ in range(blocks):
            talk.chunk(BLOCK)
        talk.say(b"0\r\n\r\n")
        return True

    return script


def hashed(talk: Talk) -> bool:
    found = hashlib.sha256()
    for piece in talk.body():
        found.update(piece)
    talk.say(SIZED % 64, found.hexdigest().encode())
    return True


def echoed(talk: Talk) -> bool:
    talk.say(CHUNKED)
    for piece in talk.body():
        talk.chunk(piece)
    talk.say(b"0\r\n\r\n")
    return True


def until_close(blocks: int) -> Callable[[Talk], bool]:
    def script(talk: Talk) -> bool:
        talk.say(b"HTTP/1.1 200 OK\r\n\r\n", *[BLOCK] * blocks)
        return False

    return script


def test_hundreds_of_megabytes_come_down_in_little_memory(stage: tuple[Hub, Function]) -> None:
    hub, echo = stage
    echo.scripts |= {"/a": sized(200), "/b": chunked(50), "/c": until_close(50)}
    with closing(connect(hub)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        before = most_resident(hub)
        for path, blocks, connections in (
            ("/a", 200, 0),
            ("/b", 50, 0),
            ("/c", 50, 0),
            ("/", 0, 1),
        ):
            known = echo.connections
            connection.request("GET", path)
            answer = connection.getresponse()
            if blocks:
                assert digest(answer) == expected(blocks)
                assert answer.getheader("content-length") == (
                    str(200 * MIB) if path == "/a" else None
                )
            else:
                assert answer.read() == b"ok"
            assert echo.connections - known == connections
        assert most_resident(hub) - before < 32


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_hundreds_of_megabytes_go_up_in_little_memory(
    stage: tuple[Hub, Function], framing: str
) -> None:
    hub, echo = stage
    echo.scripts["/up"] = hashed
    blocks = 200 if framing == "sized" else 50
    fields = {"content-length": str(blocks * MIB)} if framing == "sized" else {}
    with closing(connect(hub)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        before, known = most_resident(hub), echo.connections
        for _ in range(2):
            connection.request(
                "POST", "/up", iter([BLOCK] * blocks), fields, encode_chunked=framing == "chunked"
            )
            assert connection.getresponse().read().decode() == expected(blocks)
        assert echo.connections == known
        assert most_resident(hub) - before < 32


def test_both_bodies_flow_at_once(stage: tuple[Hub, Function]) -> None:
    hub, echo = stage
    echo.scripts["/echo"] = echoed
    before = most_resident(hub)
    with closing(connect(hub)) as connection:
        connection.putrequest("POST", "/echo")
        connection.putheader("content-length", str(50 * MIB))
        connection.endheaders(BLOCK)
        answer = connection.getresponse()
        got = answer.read(MIB)  # while most of the request is not sent
        sock = connection.sock

        def send() -> None:
            for _ in range(49):
                sock.sendall(BLOCK)

        sending = threading.Thread(target=send)
        sending.start()
        found = hashlib.sha256(got)
        while piece := answer.read(MIB):
            found.update(piece)
        sending.join()
        assert found.hexdigest() == expected(50)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
    assert most_resident(hub) - before < 32


def test_a_client_that_leaves_within_its_body_takes_its_request_along(
    stage: tuple[Hub, Function],
) -> None:
    hub, echo = stage
    begun, left = threading.Event(), threading.Event()

    def taking(talk: Talk) -> bool:
        try:
            for _ in talk.body():
                begun.set()
        except (EOFError, OSError):
            left.set()
        return False

    echo.scripts["/taking"] = taking
    before = hub.accounts()["default.web.f"].settled["given_back"]
    for fields in ({"content-length": str(9 * MIB)}, {"transfer-encoding": "chunked"}):
        begun.clear()
        left.clear()
        with closing(connect(hub)) as connection:
            connection.putrequest("POST", "/taking")
            for field in fields.items():
                connection.putheader(*field)
            connection.endheaders()
            if "content-length" not in fields:
                connection.send(b"%x\r\n" % (9 * MIB))
            connection.send(BLOCK)
            assert begun.wait(30)
            assert not left.is_set()
        assert left.wait(30)
    hub.wait(
        lambda: hub.accounts()["default.web.f"].settled["given_back"] == before + 2,
        "two deliveries that were given back",
    )


def test_a_function_that_answers_early_is_heard_and_spared_the_rest(
    stage: tuple[Hub, Function],
) -> None:
    hub, echo = stage
    left = threading.Event()

    def refusing(talk: Talk) -> bool:
        talk.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        try:
            for _ in talk.body():
                pass
        except (EOFError, OSError):
            left.set()
        return False

    echo.scripts["/refusing"] = refusing
    with closing(connect(hub)) as connection:
        connection.putrequest("POST", "/refusing")
        connection.putheader("content-length", str(900 * MIB))
        connection.endheaders(BLOCK)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (413, b"big")
        assert answer.getheader("connection") == "close"
        assert left.wait(30)


def test_events_come_as_they_are_sent_and_a_client_that_leaves_ends_them(
    stage: tuple[Hub, Function],
) -> None:
    hub, echo = stage
    seen, left = threading.Semaphore(0), threading.Event()

    def events(talk: Talk) -> bool:
        talk.say(EVENTS)
        for number in range(3):
            talk.chunk(b"data: %d\n\n" % number)
            assert seen.acquire(timeout=30)
        talk.wait_until_gone()
        left.set()
        return False

    echo.scripts["/events"] = events
    before = hub.accounts()["default.web.f"].settled["given_back"]
    with closing(connect(hub)) as connection:
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        for number in range(3):
            assert answer.readline() == b"data: %d\n" % number
            assert answer.readline() == b"\n"
            seen.release()
        assert in_flight(hub) == 1
        answer.close()
    assert left.wait(30)
    hub.wait(lambda: in_flight(hub) == 0, "the end of the delivery")
    assert hub.accounts()["default.web.f"].settled["given_back"] == before + 1


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_an_answer_that_breaks_off_is_not_taken_for_whole(
    stage: tuple[Hub, Function], framing: str
) -> None:
    hub, echo = stage

    def dying(talk: Talk) -> bool:
        if framing == "sized":
            talk.say(SIZED % (2 * MIB), BLOCK)
        else:
            talk.say(CHUNKED)
            talk.chunk(BLOCK)
        return False

    echo.scripts["/dying"] = dying
    with closing(connect(hub)) as connection:
        connection.request("GET", "/dying")
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()
        assert cut.value.partial in (BLOCK, b"")  # http.client keeps nothing of chunks
        assert connection.sock is None or connection.sock.recv(1) == b""


def test_a_client_that_reads_slowly_holds_up_the_function_alone(
    stage: tuple[Hub, Function],
) -> None:
    hub, echo = stage
    said = 0

    def much(talk: Talk) -> bool:
        nonlocal said
        talk.say(SIZED % (200 * MIB))
        while said < 200:
            talk.say(BLOCK)
            said += 1
        return True

    echo.scripts["/much"] = much
    before = most_resident(hub)
    with closing(connect(hub)) as connection, closing(connect(hub)) as other:
        connection.request("GET", "/much")
        answer = connection.getresponse()
        known = -1
        while known != said:
            known = said
            time.sleep(0.5)
        assert said < 100
        other.request("GET", "/")
        assert other.getresponse().read() == b"ok"
        assert digest(answer) == expected(200)
    assert most_resident(hub) - before < 32


def test_answers_that_flow_keep_their_place_among_others(stage: tuple[Hub, Function]) -> None:
    hub, echo = stage
    echo.scripts |= {"/b": chunked(3)}
    host, _, port = hub.listen.partition(":")
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(
            b"".join(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in (b"/b", b"/", b"/b"))
            + b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        with client.makefile("rb") as stream:
            came = stream.read()
    sizes = [len(part) for part in came.split(b"HTTP/1.1 200 OK")][1:]
    assert min(sizes[0], sizes[2]) > 3 * MIB
    assert max(sizes[1], sizes[3]) < 200
    assert came.count(b"\r\n0\r\n\r\n") == 2


def test_what_has_no_body_does_not_wait_for_one(stage: tuple[Hub, Function]) -> None:
    hub, echo = stage

    def bodiless(talk: Talk) -> bool:
        status = b"200 OK" if talk.method == "HEAD" else b"304 Not Modified"
        talk.say(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n" % (status, 200 * MIB))
        return True

    echo.scripts["/bodiless"] = bodiless
    known = echo.connections
    with closing(connect(hub)) as connection:
        for method, status in (("HEAD", 200), ("GET", 304), ("HEAD", 200)):
            connection.request(method, "/bodiless")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, b"")
            if method == "HEAD":
                assert answer.getheader("content-length") == str(200 * MIB)
    assert echo.connections - known <= 1


def test_an_older_client_gets_an_answer_of_unknown_length_whole(
    stage: tuple[Hub, Function],
) -> None:
    hub, echo = stage
    echo.scripts |= {"/b": chunked(3)}
    host, _, port = hub.listen.partition(":")
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(b"GET /b HTTP/1.0\r\nhost: x\r\n\r\n")
        with client.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % (3 * MIB) in head
    assert b"transfer-encoding" not in head
    assert body == BLOCK * 3


def test_an_answer_that_flows_is_under_way_until_its_end(tmp_path: Path) -> None:
    go_on = threading.Event()

    def slow(talk: Talk) -> bool:
        talk.say(CHUNKED)
        talk.chunk(b"begun\n")
        assert go_on.wait(30)
        talk.chunk(b"ended\n")
        talk.say(b"0\r\n\r\n")
        return True

    with staged(tmp_path, inFlight=1, timeout="1m") as (hub, echo):
        echo.scripts["/slow"] = slow
        with closing(connect(hub)) as first, closing(connect(hub)) as second:
            first.request("GET", "/slow")
            answer = first.getresponse()
            assert answer.readline() == b"begun\n"
            second.request("GET", "/")
            second.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.sock.recv(1, socket.MSG_PEEK)
            go_on.set()
            assert answer.read() == b"ended\n"
            second.sock.settimeout(30)
            assert second.getresponse().read() == b"ok"
            assert echo.most == 1

            # Its function goes, and its trigger with it: what is under way ends first.
            go_on.clear()
            first.request("GET", "/slow")
            answer = first.getresponse()
            assert answer.readline() == b"begun\n"
            (hub.manifests / "f.yaml").rename(tmp_path / "f.yaml")
            hub.wait(lambda: hub.condition("web") == "", "the end of the trigger")
            assert echo.now == 1
            go_on.set()
            assert answer.read() == b"ended\n"
        (tmp_path / "f.yaml").rename(hub.manifests / "f.yaml")
        hub.wait(lambda: hub.condition("web").startswith("True"), "a trigger that is ready")

        # A stop waits for it.
        go_on.clear()
        with closing(connect(hub)) as connection:
            connection.request("GET", "/slow")
            answer = connection.getresponse()
            assert answer.readline() == b"begun\n"
            hub.signal(signal.SIGTERM)
            hub.wait(lambda: "hub.stopping" in hub.said(), "a hub that stops")
            go_on.set()
            assert answer.read() == b"ended\n"
            assert hub.exit_code() == 0
        assert "Traceback" not in hub.said()


def test_workers_with_tls_pass_long_bodies_on_as_well(tmp_path: Path) -> None:
    authority = trustme.CA()
    shown = authority.issue_cert("127.0.0.1")
    shown.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    shown.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = ("--tls-certificate", tmp_path / "certificate.pem", "--tls-key", tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with staged(tmp_path, "--workers", "2", *map(str, files)) as (hub, echo):
        echo.scripts |= {"/up": hashed, "/b": chunked(4)}
        host, _, port = hub.listen.partition(":")
        for _ in range(6):
            with closing(
                http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
            ) as connection:
                connection.request("POST", "/up", iter([BLOCK] * 4), encode_chunked=True)
                assert connection.getresponse().read().decode() == expected(4)
                connection.request("GET", "/b")
                assert digest(connection.getresponse()) == expected(4)
        assert hub.stop() == 0
