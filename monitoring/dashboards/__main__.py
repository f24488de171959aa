"""Writes the JSON of every dashboard; run it after a change, and check both in."""

from monitoring.dashboards import DASHBOARDS, FOLDER
from monitoring.dashboards.render import render


def main() -> None:
    """Writes the files."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(render(dashboard))


if __name__ == "__main__":
    main()
