"""For gunicorn: `gunicorn --worker-class gevent --workers 1 wsgi:app`."""

from app import create_app

app = create_app()
