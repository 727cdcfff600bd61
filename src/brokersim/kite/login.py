"""Kite's login page, as plain as can be: a form, and the redirect back to the app."""

from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kite (simulated)</title></head>
<body>
<h1>Kite (simulated broker)</h1>
<p>This is brokersim, not Zerodha. Use a demo login.</p>
<p role="alert">{problem}</p>
<form method="post" action="/connect/login">
<input type="hidden" name="api_key" value="{api_key}">
<input type="hidden" name="redirect_params" value="{redirect_params}">
<label>User id <input name="user_id" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button type="submit">Log in</button>
</form>
</body></html>
"""


def page(api_key: str, redirect_params: str, problem: str = "") -> str:
    """Write the page."""
    return _PAGE.format(
        api_key=escape(api_key), redirect_params=escape(redirect_params), problem=escape(problem)
    )


def redirect(url: str, request_token: str, redirect_params: str) -> str:
    """Write the address the browser is sent to: the app's URL with the request token and its own parameters."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [
        ("action", "login"),
        ("type", "login"),
        ("status", "success"),
        ("request_token", request_token),
    ]
    query += parse_qsl(redirect_params, keep_blank_values=True)
    return urlunsplit(parts._replace(query=urlencode(query)))
