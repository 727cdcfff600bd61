from __future__ import annotations

import re

import pytest

from orderwire.store.users import Role
from orderwire.web.navigation import LINKS


@pytest.mark.parametrize("role", list(Role))
def test_every_link_a_user_sees_leads_to_a_page_they_may_open(house, role):
    client = house.client(house.user("somebody", role))

    shown = set(re.findall(r'<a (?:class="menu-item" )?href="(/[^"]*)"', client.get("/").text))

    mine = {link.path for link in LINKS if role.may(link.role)}
    assert mine <= shown
    mine &= {rule.rule for rule in house.app.url_map.iter_rules()}  # the running service has more pages
    assert {path: client.get(path).status_code for path in mine} == dict.fromkeys(mine, 200)


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_for_a_role_is_neither_shown_nor_answered(house, role):
    client = house.client(house.user("somebody", role))
    page = client.get("/").text

    for link in LINKS:
        if not role.may(link.role):
            assert f'href="{link.path}"' not in page
            assert client.get(link.path).status_code in {403, 404}


def test_the_page_that_is_open_is_marked(house):
    assert '<a href="/accounts" aria-current="page">' in house.client("asha").get("/accounts/new").text
