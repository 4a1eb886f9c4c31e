"""The rooms of the app, in the order of the navigation: to add one, add its line to `ROOMS`."""

from __future__ import annotations

from etude.web.rooms.lab.routes import ROOM as LAB
from etude.web.rooms.models.routes import ROOM as MODELS
from etude.web.rooms.papers.routes import ROOM as PAPERS
from etude.web.rooms.practise.routes import ROOM as PRACTISE
from etude.web.rooms.progress.routes import ROOM as PROGRESS
from etude.web.rooms.settings.routes import ROOM as SETTINGS
from etude.web.rooms.today.routes import ROOM as TODAY

ROOMS = (TODAY, PRACTISE, PAPERS, LAB, MODELS, PROGRESS, SETTINGS)
