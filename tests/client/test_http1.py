import pytest

from inferstack.client.http1 import Frame, ProtocolError, frame

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=1\r\nabc\r\n0\r\n\r\n"
)


def test_an_answer_ends_where_its_content_length_says() -> None:
    assert frame(OK + b"HTTP/1.1 404") == Frame(200, len(OK), False)


def test_a_chunked_answer_ends_after_its_last_chunk() -> None:
    assert frame(CHUNKED + b"HTTP") == Frame(200, len(CHUNKED), False)


@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
def test_every_piece_of_an_answer_is_incomplete(answer: bytes) -> None:
    assert all(frame(answer[:size]) is None for size in range(len(answer)))


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert frame(answer) is None
    assert frame(answer, closed=True) == Frame(200, len(answer), False)


def test_an_interim_answer_is_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert frame(interim + OK) == Frame(200, len(interim + OK), False)
    assert frame(interim) is None


def test_a_204_has_no_body() -> None:
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert frame(answer + OK) == Frame(204, len(answer), False)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_closing_server_is_noticed(answer: bytes) -> None:
    found = frame(answer)
    assert found is not None
    assert found.close


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_an_error(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        frame(answer)
