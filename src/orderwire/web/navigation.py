"""Where the pages lead: the links of the bar and of the user's menu, by role. A new page adds one line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flask import request
from flask_login import current_user

from orderwire.store.users import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One page in the navigation; shown to users of at least `role`."""

    path: str
    label: str
    icon: str
    """A symbol of templates/_icons.html, without its `i-`."""
    role: Role = Role.TRADER
    in_menu: bool = False
    """In the user's menu instead of the bar."""

    @property
    def current(self) -> bool:
        """Whether this request is for the page or one below it."""
        path = request.path
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))


LINKS: Final = (
    Link(path="/", label="Orders", icon="book"),
    Link(path="/accounts", label="Accounts", icon="link"),
    Link(path="/operator", label="Operator", icon="pulse", role=Role.OPERATOR),
    Link(path="/settings", label="Settings", icon="settings", in_menu=True),
    Link(path="/people", label="People", icon="people", role=Role.OWNER, in_menu=True),
    Link(path="/audit", label="Audit", icon="audit", role=Role.OPERATOR, in_menu=True),
    Link(path="/report", label="Report", icon="report", role=Role.OWNER, in_menu=True),
    Link(path="/survey", label="Tell us", icon="survey", in_menu=True),
    Link(path="/rollout", label="Rollout", icon="rollout", role=Role.OPERATOR),
)


def links() -> dict[str, list[Link]]:
    """Return the links of this request's user: `bar` and `menu`."""
    mine = [link for link in LINKS if current_user.role.may(link.role)]
    return {
        "bar": [link for link in mine if not link.in_menu],
        "menu": [link for link in mine if link.in_menu],
    }
