"""Users, their API keys and the key that seals every secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orderwire.errors import InvalidRequestError
from orderwire.store.invitations import RESET_HOURS
from orderwire.store.users import Role, Scope
from orderwire.web.operations.office import Command, Office, there


class AddUser(Command):
    """Make a user."""

    name: str
    password: str
    role: Role = Role.TRADER

    def perform(self, office: Office) -> Any:
        user = office.users.add(self.name, self.password, role=self.role, by=self.by)
        return {"name": user.name, "role": user.role}


class ListUsers(Command):
    """List the users."""

    def perform(self, office: Office) -> Any:
        return [{"name": u.name, "role": u.role, "disabled": u.disabled} for u in office.users.all()]


class SetPassword(Command):
    """Change a password; ends the user's sessions."""

    name: str
    password: str

    def perform(self, office: Office) -> Any:
        office.users.set_password(self.name, self.password, by=self.by)


class SetRole(Command):
    """Change what a user may do; ends the user's sessions."""

    name: str
    role: Role

    def perform(self, office: Office) -> Any:
        office.users.set_role(self.name, self.role, by=self.by)


class DisableUser(Command):
    """Keep a user from logging in, or let them again."""

    name: str
    disabled: bool = True

    def perform(self, office: Office) -> Any:
        change = office.users.disable if self.disabled else office.users.enable
        change(self.name, by=self.by)


class FirstLink(Command):
    """Make the link by which the first administrator is made."""

    def perform(self, office: Office) -> Any:
        token = there(office.invitations).first()
        if token is None:
            raise InvalidRequestError({"users": "There are users already; an owner adds others."})
        return {"link": f"{office.url}/setup/{token}"}


class PasswordLink(Command):
    """Make a link by which a user sets a new password."""

    name: str

    def perform(self, office: Office) -> Any:
        token = there(office.invitations).password(self.name, by=self.by)
        return {"link": f"{office.url}/password/{token}", "hours": RESET_HOURS}


class AddKey(Command):
    """Make an API key; it is shown this once."""

    owner: str
    scope: Scope = Scope.READ
    label: str = ""

    def perform(self, office: Office) -> Any:
        key, plain = office.users.add_key(self.owner, scope=self.scope, label=self.label, by=self.by)
        return {"key": plain, "id": key.id, "scope": key.scope}


class ListKeys(Command):
    """List a user's API keys, without the keys themselves."""

    owner: str

    def perform(self, office: Office) -> Any:
        return [{"id": k.id, "scope": k.scope, "label": k.label} for k in office.users.keys(self.owner)]


class RevokeKey(Command):
    """End an API key."""

    owner: str
    id: str

    def perform(self, office: Office) -> Any:
        office.users.revoke_key(self.id, owner=self.owner, by=self.by)


class RotateKeys(Command):
    """Make a new sealing key and seal every secret again."""

    forget_old: bool = False

    def perform(self, office: Office) -> Any:
        key, secrets = there(office.vault).rotate(by=self.by, forget_old=self.forget_old)
        return {"key": key, "secrets": secrets}


COMMANDS: Mapping[str, type[Command]] = {
    "users.add": AddUser,
    "users.list": ListUsers,
    "users.password": SetPassword,
    "users.disable": DisableUser,
    "users.role": SetRole,
    "users.first": FirstLink,
    "users.reset": PasswordLink,
    "keys.rotate": RotateKeys,
    "apikeys.add": AddKey,
    "apikeys.list": ListKeys,
    "apikeys.revoke": RevokeKey,
}
