"""What the command line and the pages both open and do: services above the rooms.

A service takes plain arguments and a `Progress` or a callback, and returns typed results; what a
person got wrong is an `EtudeError`. It knows nothing of typer, rich or HTTP. Modules are imported
inside the functions that need them: importing a service loads neither torch nor SQLAlchemy.
"""
