"""What a route asks for to reach the services: `Bench`, the workbench of its user."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from etude.app.workbench import Workbench


def workbench(request: Request) -> Workbench:
    """Return the workbench that the app has open."""
    return request.app.state.bench


Bench = Annotated[Workbench, Depends(workbench)]
