"""The gate, over every route that there is: what a stranger, or another site, can do."""

from __future__ import annotations

import re

import pytest
from starlette.websockets import WebSocketDisconnect
from tests.web.conftest import KEY, LAUNCH_KEY, PORT

from etude.web.rooms import ROOMS
from etude.web.security import is_public
from etude.web.session import LAUNCH_SECONDS, Sessions, launch_token

OWN = f"http://127.0.0.1:{PORT}"
ROUTERS = [router for room in ROOMS for router in room.routers]


def calls(web):
    """Return (method, path) of each route, with a value for each parameter of a path."""
    for route in web.app.routes:
        for method in route.methods:
            yield method, re.sub(r"{[^}]*}", "x", route.path), route


def unsafe(web):
    return [
        (method, path, is_public(route))
        for method, path, route in calls(web)
        if method not in ("GET", "HEAD", "OPTIONS")
    ]


def test_every_route_of_every_room_is_known_to_the_gate(web):
    known = {id(route) for route in web.app.routes}
    assert all(id(route) in known for router in ROUTERS for route in router.routes)
    assert len(web.app.routes) > sum(len(router.routes) for router in ROUTERS)


def test_only_the_way_in_and_built_files_are_public(web):
    public = {(method, path) for method, path, route in calls(web) if is_public(route)}
    assert public == {
        ("GET", "/open"),
        ("GET", "/login"),
        ("POST", "/login"),
        ("GET", "/static/x"),
        ("GET", "/feeds/x/x"),  # asks for the secret in its own path
    }


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8700", "127.0.0.1:9", "127.0.0.1", "127.0.0.1.evil.example:8700",
     "localhost:8700:8700", "127.0.0.1:8700@evil", "[::1", ""],
)  # fmt: skip
def test_no_route_answers_to_a_foreign_host(web, client, host):
    for method, path, _ in calls(web):
        answer = client.request(method, path, headers={"Host": host, "Origin": OWN})
        assert answer.status_code == 403, (method, path)
        assert "cookie" not in answer.headers.get("set-cookie", "")
        assert len(answer.content) < 120


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8700", "localhost:8700", "LOCALHOST:8700", "[::1]:8700"]
)
def test_its_own_names_are_answered(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_without_a_session_no_route_answers_unless_it_is_public(web, visitor):
    for method, path, route in calls(web):
        answer = visitor.request(method, path, headers={"Origin": OWN})
        if not is_public(route):
            assert answer.status_code == 401, (method, path)
    assert visitor.get("/no-such-page").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": f"{OWN}.evil.example"},
        {"Origin": f"{OWN}/"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Origin": "http://127.0.0.1:9"},
        {"Origin": f"http://localhost:{PORT}"},  # not the name in Host
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": OWN},
        {"Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_what_another_site_sends_is_refused(web, client, headers):
    token = client_token(web, client)
    for method, path, _ in unsafe(web):
        answer = client.request(method, path, headers={"X-CSRF-Token": token, **headers})
        assert answer.status_code == 403, (method, path)


def client_token(web, client):
    (cookie,) = client.cookies.values()
    return web.sessions.read(cookie).csrf


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_in_a_session_nothing_is_changed_without_its_token(web, client, token):
    headers = {"Origin": OWN}
    if token is not None:
        headers["X-CSRF-Token"] = token.encode()
    for method, path, _ in unsafe(web):
        assert client.request(method, path, headers=headers).status_code == 403
        form = {"csrf": token or "", "password": "x"}
        own = {"Origin": OWN}
        assert client.request(method, path, headers=own, data=form).status_code == 403
        files = {"file": ("a.csv", b"a,b\n")}
        answer = client.request(method, path, headers=own, data=form, files=files)
        assert answer.status_code == 403
        assert client.request(method, path, headers=own, json=form).status_code == 403


def test_the_token_of_another_session_is_refused(web, client):
    other = web.sessions.read(web.sessions.begin()).csrf
    answer = client.post("/login", headers={"Origin": OWN, "X-CSRF-Token": other})
    assert answer.status_code == 403


def test_the_token_may_come_as_a_header_or_as_the_first_field_of_a_form(web, client):
    token = client_token(web, client)
    own = {"Origin": OWN}
    form = {"csrf": token, "password": "x"}
    files = {"file": ("a.csv", b"a,b\n" * 50_000)}
    # With a session and no password set, the way in leads to the first page.
    assert client.post("/login", headers=own, data=form).status_code == 303
    assert client.post("/login", headers=own, data=form, files=files).status_code == 303
    answer = client.post("/login", headers={**own, "X-CSRF-Token": token}, data={"password": "x"})
    assert answer.status_code == 303


@pytest.mark.parametrize("path", ["/", "/events", "/static/x", "/no"])
@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("headers", [{}, {"origin": OWN}, {"origin": "http://evil.example"}])
def test_no_websocket_is_opened(request, path, session, headers):
    client = request.getfixturevalue("client" if session else "visitor")
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path, headers=headers):
        pass


def test_every_answer_has_the_policy_and_none_lets_other_sites_read(web, client):
    answers = [client.request(method, path) for method, path, _ in calls(web) if path != "/events"]
    answers += [client.get("/no"), client.get("/", headers={"Host": "evil"}), client.put("/")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        if policy == "default-src 'none'; sandbox":
            assert answer.headers["content-disposition"].startswith("attachment")
        else:
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not any(name.startswith("access-control") for name in answer.headers)
        assert "style=" not in answer.text.replace("tyle=\\", "") or "css" in answer.url.path


def test_a_forged_or_ended_session_is_none(web):
    cookie = web.sessions.begin()
    assert web.sessions.read(cookie) is not None
    name, expiry, signature = cookie.split(".")
    for forged in (
        "", "..", "a.b.c", cookie + "0", f"{name}.{int(expiry) + 1}.{signature}",
        f"{'0' * 32}.{expiry}.{signature}", f"{name}.{expiry}.é",
    ):  # fmt: skip
        assert web.sessions.read(forged) is None
    late = Sessions(KEY, LAUNCH_KEY, clock=lambda: int(expiry) + 1.0)
    assert late.read(cookie) is None


def test_a_session_outlives_a_restart_of_the_server(web):
    restarted = Sessions(KEY, b"another launch key")
    cookie = web.sessions.begin()
    assert restarted.read(cookie) == web.sessions.read(cookie)


def test_the_launch_link_lets_in_once_and_leaves_no_token_in_the_address(web, visitor):
    link = web.launch_link()
    answer = visitor.get(link)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert visitor.get("/").status_code == 200
    visitor.cookies.clear()
    again = visitor.get(link)
    assert again.status_code == 403
    assert "used before" in again.text
    assert "set-cookie" not in again.headers


def test_a_launch_token_ends_and_belongs_to_one_server(web):
    token = launch_token(LAUNCH_KEY)
    assert not Sessions(KEY, b"another server").accept(token)
    made = int(token.partition(".")[0])
    assert not Sessions(KEY, LAUNCH_KEY, clock=lambda: made + LAUNCH_SECONDS + 1.0).accept(token)
    for forged in ("", ".", "0.0.0", token + "0", "1" + token):
        assert not Sessions(KEY, LAUNCH_KEY).accept(forged)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(web, client):
    read = 0

    def body():
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1_000_000

    headers = {"Origin": OWN, "X-CSRF-Token": client_token(web, client)}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    large = {"Content-Length": "2000000000"}
    answer = client.post("/login", headers={**headers, **form, **large}, content=b"")
    assert answer.status_code == 413
    assert "too large" in answer.text
    # Without a length, as soon as it is more than is allowed; with the token only in the form, too.
    assert client.post("/login", headers={"Origin": OWN, **form}, content=body()).status_code == 413
    assert client.post("/login", headers={**headers, **form}, content=body()).status_code == 413


def test_a_body_without_a_length_is_refused_by_every_form_in_words(web, client):
    token = client_token(web, client)
    own = {"Origin": OWN}
    first = f'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{token}\r\n'
    second = '--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'

    def body(beginning):
        yield beginning.encode()
        for _ in range(12):
            yield b"x" * 100_000

    kinds = {
        "multipart/form-data; boundary=b": first + second,
        "application/x-www-form-urlencoded": f"csrf={token}&x=",
    }
    for method, path, route in calls(web):
        if route.body_field is None or (route.max_body_size or 0) > 1_000_000:
            continue  # it reads no form, or a large one
        for kind, beginning in kinds.items():
            headers = {**own, "Content-Type": kind}
            answer = client.request(method, path, headers=headers, content=body(beginning))
            assert answer.status_code == 413, (path, kind)
            assert "<h1>This is too large</h1>" in answer.text, (path, kind)


@pytest.mark.parametrize("path", ["/lab", "/papers", "/"])
def test_texts_of_strangers_stay_text(client, path):
    page = client.get(path).text
    assert "window.hacked" in page
    assert "<img" not in page
