"""Which claim serves a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from triggerhub_http.routes import Claim, PathError, Routes

BORN = datetime(2026, 11, 23, tzinfo=UTC)


def claim(
    name: str,
    path: str = "/",
    *,
    exact: bool = False,
    host: str = "",
    methods: set[str] | None = None,
    age: int = 0,
) -> Claim[str]:
    return Claim(
        host=host,
        path=path,
        exact=exact,
        methods=None if methods is None else frozenset(methods),
        created=BORN - timedelta(days=age),
        name=name,
        owner=name,
    )


def table(*claims: Claim[str]) -> Routes[str]:
    routes: Routes[str] = Routes()
    for each in claims:
        routes.add(each)
    return routes


def found(routes: Routes[str], path: str, host: str = "a.example", method: str = "GET") -> str:
    """Who serves, and what follows: ``owner|rest``; or the methods that are allowed."""
    owner, rest, allowed = routes.find(host, path, method)
    return f"{owner.owner}|{rest}" if owner else " ".join(sorted(allowed)) or "nobody"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "root|"),
        ("/x", "root|/x"),
        ("//x", "root|//x"),
        ("/shop", "shop|"),
        ("/shop/", "shop|/"),
        ("/shopping", "root|/shopping"),
        ("/shop/a%2Fb", "shop|/a%2Fb"),
        ("/sh%6Fp/c", "shop|/c"),
        ("/shop/orders", "exact|"),
        ("/shop/orders/", "orders|/"),
        ("/shop/orders/7/items", "orders|/7/items"),
        ("/shop%2Forders", "root|/shop%2Forders"),
        ("/caf%c3%a9/x", "cafe|/x"),
        ("/shop/%", "shop|/%"),
        ("/shop/a..b/.c", "shop|/a..b/.c"),
    ],
)
def test_an_exact_path_wins_then_the_longest_prefix_by_elements(path: str, expected: str) -> None:
    routes = table(
        claim("root"),
        claim("shop", "/shop/"),
        claim("orders", "/shop/orders"),
        claim("exact", "/shop/orders", exact=True),
        claim("cafe", "/caf%C3%A9"),
    )
    assert found(routes, path) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.example.com", "exact|/x"),
        ("API.Example.com:8080", "exact|/x"),
        ("api.example.com.", "exact|/x"),
        ("www.example.com", "wildcard|/x"),
        ("a.b.example.com", "any|/x"),
        ("example.com", "any|/x"),
        ("[::1]:8080", "any|/x"),
        ("", "any|/x"),
        ("*.example.com", "wildcard|/x"),
    ],
)
def test_an_exact_host_wins_then_a_wildcard_for_one_label_then_any(
    host: str, expected: str
) -> None:
    routes = table(
        claim("any"),
        claim("wildcard", host="*.example.com"),
        claim("exact", host="api.example.com"),
    )
    assert found(routes, "/x", host) == expected


def test_a_claim_that_takes_the_method_wins_over_a_more_specific_one_that_does_not() -> None:
    routes = table(
        claim("read", "/a", methods={"GET"}),
        claim("write", "/", methods={"POST"}),
        claim("api", "/a", host="api.example.com", methods={"PUT"}),
    )
    assert found(routes, "/a", "api.example.com", "PUT") == "api|"
    assert found(routes, "/a", "api.example.com", "GET") == "read|"
    assert found(routes, "/a", "api.example.com", "POST") == "write|/a"
    assert found(routes, "/a", "api.example.com", "DELETE") == "GET HEAD POST PUT"
    assert found(routes, "/", "b.example", "GET") == "POST"


def test_head_goes_where_get_goes_unless_it_is_claimed_itself() -> None:
    routes = table(claim("get", methods={"GET"}))
    assert found(routes, "/", method="HEAD") == "get|"
    routes.add(claim("head", methods={"HEAD"}))
    assert found(routes, "/", method="HEAD") == "head|"


def test_an_unknown_path_is_served_by_nobody() -> None:
    assert found(table(claim("a", "/a"), claim("b", "/b", exact=True)), "/b/c") == "nobody"
    assert found(table(), "/") == "nobody"


@pytest.mark.parametrize("path", ["/a/../b", "/..", "/a/.", "/./a", "/a/%2e%2E/b", "/%2e"])
def test_a_path_that_means_another_one_is_refused(path: str) -> None:
    with pytest.raises(PathError, match=r"'\.' or '\.\.'"):
        table(claim("root")).find("", path, "GET")


def test_the_oldest_claim_serves_and_the_next_takes_over_when_it_leaves() -> None:
    routes: Routes[str] = Routes()
    young, old, middle = (claim(n, "/a", age=a) for n, a in (("y", 0), ("o", 9), ("m", 5)))
    assert routes.add(young) == []
    assert routes.add(old) == [young]
    assert young.holder is old
    routes.add(middle)
    assert found(routes, "/a") == "o|"
    assert set(routes.remove(old)) == {middle, young}
    assert (middle.holder, young.holder) == (None, middle)
    assert found(routes, "/a") == "m|"


def test_of_two_of_one_age_the_first_by_name_serves() -> None:
    routes = table(claim("b"), claim("a"))
    assert found(routes, "/") == "a|"


def test_claims_overlap_only_where_they_share_a_method() -> None:
    get, post, both = (
        claim("get", methods={"GET"}, age=2),
        claim("post", methods={"POST"}, age=1),
        claim("both", methods={"GET", "POST", "PUT"}),
    )
    routes = table(get, post, both)
    assert (get.holder, post.holder, both.holder) == (None, None, get)
    routes.remove(get)
    assert both.holder is post
    routes.remove(post)
    assert both.holder is None


def test_a_claim_that_leaves_serves_until_another_wants_the_route() -> None:
    leaving, other = claim("leaving", age=9), claim("other")
    routes = table(leaving)
    assert routes.leave(leaving) == []
    assert found(routes, "/") == "leaving|"
    routes.add(other)
    assert found(routes, "/") == "other|"


def test_what_was_removed_leaves_nothing_behind() -> None:
    claims = [
        claim("a", "/a/b"),
        claim("b", "/b", exact=True),
        claim("c", "/c", host="c.example", methods={"GET"}),
    ]
    routes = table(*claims)
    for each in claims:
        routes.remove(each)
    assert vars(routes) == vars(Routes())


def test_a_path_of_very_many_elements_is_looked_up() -> None:
    routes = table(claim("deep", "/a/b/c"), claim("root"))
    path = "/a" + "/" * 60_000
    assert found(routes, path) == f"root|{path}"


def test_what_was_found_before_is_forgotten_when_claims_come_or_go() -> None:
    young, old = claim("young"), claim("old", age=3)
    routes = table(young)
    assert routes.find("h", "/a", "GET")[:2] == (young, "/a")
    routes.add(old)
    assert routes.find("h", "/a", "GET")[:2] == (old, "/a")
    routes.leave(old)
    assert routes.find("h", "/a", "GET")[0] is young
    routes.remove(old)
    routes.remove(young)
    assert routes.find("h", "/a", "GET")[0] is None


def test_what_clients_make_up_does_not_fill_the_memory() -> None:
    only = claim("only")
    routes = table(only)
    for n in range(3000):
        assert routes.find("h", f"/{n}", "GET")[0] is only
    assert routes.find("h", "/" + "x" * 10_000, "GET")[0] is only
    assert len(routes._found) <= 1024
    assert all(len(path) < 256 for _, path, _ in routes._found)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/shop/7", "order|"),
        ("/shop/7/", "shop|/7/"),
        ("/shop/new", "new|"),
        ("/shop/", "shop|/"),
        ("/shop//items", "shop|//items"),
        ("/shop/8/items", "both|"),
        ("/shop/7/items/", "items|/"),
        ("/shop/7/items/3", "items|/3"),
        ("/shop/new/items/3", "new items|/3"),
        ("/shop/a%2Fb/items/3/4", "items|/3/4"),
        ("/shop/%25/items/", "items|/"),
        ("/shop/%/items/", "items|/"),
        ("/shop/7/b", "literal before|"),
        ("/shop/8/b", "literal after|"),
        ("/shop/8/c", "both|"),
        ("/a", "any|"),
        ("/a/b", "root|/a/b"),
        ("//b", "root|//b"),
    ],
)
def test_a_parameter_is_one_element_and_a_literal_goes_before_it(path: str, expected: str) -> None:
    routes = table(
        claim("root"),
        claim("any", "/{any}", exact=True),
        claim("shop", "/shop"),
        claim("order", "/shop/{order}", exact=True),
        claim("new", "/shop/new", exact=True),
        claim("items", "/shop/{order}/items"),
        claim("new items", "/shop/new/items/"),
        claim("both", "/{shop}/{order}/{x}", exact=True),
        claim("literal after", "/{shop}/{order}/b", exact=True),
        claim("literal before", "/{shop}/7/{x}", exact=True),
    )
    assert found(routes, path) == expected


def test_the_name_of_a_parameter_makes_no_other_route() -> None:
    one, other = claim("one", "/a/{id}", age=2), claim("other", "/a/{name}")
    literal = claim("literal", "/a/%7Bid%7D")
    routes = table(one, other, literal)
    assert (other.holder, literal.holder) == (one, None)
    assert found(routes, "/a/{id}") == "literal|"
    assert found(routes, "/a/x") == "one|"
    for each in (one, other, literal):
        routes.remove(each)
    assert vars(routes) == vars(Routes())


def test_parameters_are_found_among_very_many_elements() -> None:
    routes = table(claim("deep", "/a/{b}/c/{d}"), claim("root"))
    path = "/a/1/c/2" + "/" * 60_000
    assert found(routes, path).startswith("deep|/")


def test_ten_thousand_paths_with_parameters_are_one_shape() -> None:
    claims = [claim(f"{n}", f"/{n}/{{id}}") for n in range(10_000)]
    routes = table(*claims)
    assert found(routes, "/77/x/y") == "77|/y"
    (table_of_any,) = routes._tables.values()
    assert len(table_of_any.prefixes._varied) == 1
    for each in claims:
        routes.remove(each)
    assert vars(routes) == vars(Routes())
