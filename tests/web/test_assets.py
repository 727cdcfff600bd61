from __future__ import annotations

import pytest

from orderwire.errors import ConfigurationError
from orderwire.web.assets import load_assets


def test_names_lead_to_the_files_of_the_build(tmp_path):
    (tmp_path / "manifest.json").write_text('{"version": "abc", "files": {"app.js": "app-X1.js"}}')

    built = load_assets(tmp_path)

    assert (built.version, built.path("app.js")) == ("abc", "build/app-X1.js")


@pytest.mark.parametrize("manifest", [None, "", "{}", "[]", '{"version": 1}', '{"version": 1, "files": [1]}'])
def test_pages_that_were_not_built_are_one_clear_line(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)

    with pytest.raises(ConfigurationError, match="make pages"):
        load_assets(tmp_path)
