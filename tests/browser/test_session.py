"""Stories of readers whom the service asks who they are."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import Serve, answer, drop, faults
from builders import png_bytes
from callers import a_key
from databases import kept_in
from issuer import AUDIENCE, CLIENT, Issuer, an_issuer
from playwright.sync_api import Page, expect

from service.identity.caller import Scope
from service.identity.keys import id_of
from service.persistence import keys

pytestmark = pytest.mark.browser

KeyFor = Callable[..., str]
ASKING = {"authentication": True}


@pytest.fixture
def key_for(home: Path) -> KeyFor:
    """A key of the service that this home is of."""

    def key_for(*scopes: Scope) -> str:
        with kept_in(home) as kept:
            return a_key(kept[0].engine, *scopes)[1]

    return key_for


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


def test_a_reader_signs_in_and_diagnoses(serve: Serve, key_for: KeyFor, page: Page) -> None:
    page.goto(serve(ASKING))
    sign_in(page, key_for(Scope.READ, Scope.SUBMIT, Scope.CURATE))
    expect(page.locator("#caller")).to_contain_text("key:")
    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")

    drop(page, png_bytes())
    expect(answer(page)).to_be_visible()
    page.get_by_role("button", name="Accept").click()

    expect(page.locator(".told")).to_contain_text("✓ Accepted")


def test_a_wrong_key_is_refused_with_the_services_sentence(serve: Serve, page: Page) -> None:
    page.goto(serve(ASKING))
    expect(page.get_by_label("API key or token")).to_be_focused()
    assert faults(page) == []

    sign_in(page, f"gsco_{'0' * 12}_{'a' * 43}")

    expect(page.get_by_role("alert").filter(has_text="not known")).to_have_text(
        "The API key is not known here."
    )


def test_a_key_is_in_no_address_and_no_cookie_and_gone_with_the_reader(
    serve: Serve, key_for: KeyFor, page: Page
) -> None:
    key, asked = key_for(Scope.READ, Scope.SUBMIT), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(serve(ASKING))
    sign_in(page, key)
    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")
    page.reload()
    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key or token")).to_be_visible()

    assert not [address for address in asked if key in address]
    assert page.context.cookies() == []
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}])"
    assert key not in page.evaluate(kept)


def test_what_a_reader_may_not_do_is_not_offered(serve: Serve, key_for: KeyFor, page: Page) -> None:
    page.goto(serve(ASKING))
    sign_in(page, key_for(Scope.READ))
    expect(page.locator("#caller")).to_contain_text("key:")

    expect(page.get_by_role("button", name="Open file…")).to_be_hidden()
    drop(page, png_bytes())

    expect(page.locator("#alert")).to_contain_text("the scope submit")


def test_a_submitter_is_offered_no_review(serve: Serve, key_for: KeyFor, page: Page) -> None:
    page.goto(serve(ASKING))
    sign_in(page, key_for(Scope.READ, Scope.SUBMIT))
    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")

    drop(page, png_bytes())
    expect(answer(page)).to_be_visible()

    expect(page.get_by_role("button", name="Accept")).to_be_hidden()


def test_a_token_of_the_issuer_opens_the_page(serve: Serve, page: Page) -> None:
    with an_issuer() as issuer:
        page.goto(serve({**ASKING, "oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}))
        sign_in(page, issuer.token("submitter"))
        expect(page.locator("#caller")).to_contain_text("user:dr-house")
        drop(page, png_bytes())

        expect(answer(page)).to_be_visible()


def test_a_key_that_is_revoked_is_asked_for_again_and_the_case_stays(
    serve: Serve, key_for: KeyFor, home: Path, page: Page
) -> None:
    old, new = key_for(*Scope), key_for(*Scope)
    page.goto(serve(ASKING))
    sign_in(page, old)
    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")
    drop(page, png_bytes())
    expect(answer(page)).to_be_visible()

    with kept_in(home) as kept:
        keys.revoke(kept[0].engine, id_of(old), "local:test")
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_role("dialog")).to_contain_text("is revoked: ask for another")
    sign_in(page, new)
    page.get_by_role("button", name="Accept").click()

    expect(page.locator(".told")).to_contain_text("✓ Accepted")


def test_whoever_is_not_asked_sees_no_sign_in(serve: Serve, page: Page) -> None:
    page.goto(serve())

    expect(page.get_by_label("Task").first).to_have_value("cxr-pneumonia")
    expect(page.locator("#caller")).to_be_empty()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with an_issuer() as issuer:
        yield issuer


def with_sign_in(issuer: Issuer) -> dict[str, Any]:
    return {
        **ASKING,
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
        "oidc_client_id": CLIENT,
    }


def use_account(page: Page) -> None:
    page.get_by_role("button", name="Use your hospital account").click()


def test_a_reader_signs_in_at_the_issuer(serve: Serve, issuer: Issuer, page: Page) -> None:
    address = serve(with_sign_in(issuer))
    page.goto(f"{address}/#/worklist")
    expect(page.get_by_role("button", name="Use your hospital account")).to_be_visible()
    assert faults(page) == []

    use_account(page)

    expect(page.locator("#caller")).to_contain_text("user:dr-house")
    assert page.url == f"{address}/#/worklist"
    page.reload()
    expect(page.locator("#caller")).to_contain_text("user:dr-house")

    page.goto(f"{address}/?code=unasked&state=unasked")
    expect(page.locator("#caller")).to_contain_text("user:dr-house")
    assert page.url == f"{address}/"


@pytest.mark.parametrize(
    ("returns", "sentence"),
    [
        ({"state": "another"}, "This sign-in was not begun in this tab: sign in again."),
        ({"code": "guessed"}, "The issuer refused the sign-in (invalid_grant): sign in again."),
    ],
)
def test_an_answer_to_another_sign_in_is_refused(
    serve: Serve, issuer: Issuer, page: Page, returns: dict[str, str], sentence: str
) -> None:
    issuer.returns = returns
    address = serve(with_sign_in(issuer))
    page.goto(address)

    use_account(page)

    expect(page.locator("#sign-in-told")).to_have_text(sentence)
    assert "code=" not in page.url
    assert page.evaluate("JSON.stringify({...sessionStorage})") == "{}"


@pytest.mark.parametrize("answer", [None, 7, "<b>", "two words", "x" * 20_000])
def test_what_is_no_token_is_not_kept(
    serve: Serve, issuer: Issuer, page: Page, answer: object
) -> None:
    issuer.tokens = {"access_token": answer}
    page.goto(serve(with_sign_in(issuer)))

    use_account(page)

    expect(page.locator("#sign-in-told")).not_to_be_empty()
    assert page.evaluate("sessionStorage.getItem('gsco-credential')") is None


def test_a_token_of_another_sign_in_is_refused(serve: Serve, issuer: Issuer, page: Page) -> None:
    issuer.id_claims = {"nonce": "another"}
    page.goto(serve(with_sign_in(issuer)))

    use_account(page)

    expect(page.locator("#sign-in-told")).to_contain_text("another sign-in than this one")
    expect(page.get_by_label("API key or token")).to_be_visible()


def test_a_case_is_still_there_after_a_token_has_expired(
    serve: Serve, issuer: Issuer, page: Page
) -> None:
    page.goto(serve(with_sign_in(issuer)))
    use_account(page)
    expect(page.locator("#caller")).to_contain_text("user:dr-house")
    drop(page, png_bytes())
    expect(answer(page)).to_be_visible()

    expired = issuer.token("submitter", exp=int(time.time()) - 60)
    page.evaluate("(token) => sessionStorage.setItem('gsco-credential', token)", expired)
    page.reload()
    expect(page.get_by_role("dialog")).to_contain_text("The token has expired")
    use_account(page)

    expect(answer(page)).to_be_visible()


def test_while_the_issuer_is_away_only_a_key_is_asked_for(
    serve: Serve, issuer: Issuer, key_for: KeyFor, page: Page
) -> None:
    issuer.status = 500
    page.goto(serve(with_sign_in(issuer)))
    sign_in(page, key_for(Scope.READ))

    expect(page.locator("#caller")).to_contain_text("key:")
