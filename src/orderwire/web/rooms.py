"""Attaches the pages beside the order book and the accounts; each is a room of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from flask_limiter import Limiter

from orderwire.core.events import EventType
from orderwire.store.invitations import Invitations
from orderwire.web.entrance import Entrance
from orderwire.web.orderstory import OrderStories
from orderwire.web.paints import PaintTimes
from orderwire.web.people import People
from orderwire.web.settingspage import SettingsPage

if TYPE_CHECKING:
    from orderwire.web.app import Services


def attach(app: Flask, services: Services, *, limiter: Limiter, paints: PaintTimes) -> None:
    """Register the routes of every room, and what they listen to."""
    services.engine.register(EventType.ORDER_CHANGED, paints.on_changed)
    invitations = Invitations(services.database, services.users)
    Entrance(invitations).attach(app, limiter)
    People(
        accounts=services.accounts,
        database=services.database,
        invitations=invitations,
        url=services.settings.url,
        users=services.users,
    ).attach(app, limiter)
    SettingsPage(
        accounts=services.accounts,
        fleet=services.fleet,
        notifications=services.notifications,
        users=services.users,
    ).attach(app, limiter)
    OrderStories(
        accounts=services.accounts,
        brokers=services.brokers,
        database=services.database,
        desk=services.desk,
        fleet=services.fleet,
        paints=paints,
    ).attach(app, limiter)
