"""The local web app of `etude up`: a folder a room, thin pages over the services of `etude.app`.

`app.py` puts it together, `security.py` stands before every request, `rooms/` holds the pages,
`events.py` the one stream of news. Built styles and scripts are in `static/dist` (`make web`).
"""
