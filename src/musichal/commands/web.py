"""`musichal play --web` and `musichal web`: the dashboard of a performance, of a session, of a partner."""

import atexit
import contextlib
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import typer

from musichal.commands.options import LOOPBACK, MovedPartner, NoBrowser, PlayOptions, WebHost, WebPort
from musichal.commands.play import live_command, stop_signals
from musichal.commands.session import known_partner, names_of
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.evaluate.partner_stats import partner_stats
from musichal.evaluate.takes import overview
from musichal.live.live_performance import LivePerformance, LiveRequest
from musichal.live.session.session import read_session
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.settings import PartnerSettings
from musichal.text import path_text, printable
from musichal.web.dashboard import Dashboard, WebPlace
from musichal.web.messages import hello, session_messages
from musichal.web.shelf import find_shelf, looks_like_session

_LOOK_S = 0.2
Shown = tuple[dict[str, Any], Iterable[dict[str, Any]]]
"""The messages of a session or a partner, the first apart."""
_NOTHING: Shown = (
    hello(PartnerSettings(), recordings=[], live=False, nothing=True, title="MusicHal", duration_s=0.0),
    (),
)


def live_web_command(options: PlayOptions, terminal: Terminal) -> dict[str, Any]:
    """Play live, with the dashboard. Raises as `live_command` does, and where the page cannot be served."""
    with Dashboard(place=WebPlace(host=options.web_host, port=options.web_port)) as dashboard:

        def opened(performance: LivePerformance) -> None:
            request, model = performance.request, performance.model
            dashboard.put = performance.put
            dashboard.on_end = lambda text: performance.engine.tell("dashboard", text)
            first = hello(
                request.settings,
                recordings=_recordings(model),
                live=True,
                title=printable(performance.input.device.name),
                session=request.session is not None,
                duration_s=request.duration_s,
                clocks=_clocks(request),
                files={"partner": path_text(request.partner.resolve())},
            )
            rate_hz = performance.input.sample_rate_hz
            learning = performance.learning

            def say_controllers() -> None:
                fields = ("name", "controller", "channel", "note")
                given = [{field: getattr(m, field) for field in fields} for m in learning.mappings]
                state = {"works": learning.works, "is_kept": learning.is_kept, "waits_for": learning.waits_for}
                dashboard.say({"k": "controllers", "given": given, **state})

            learning.on_change = say_controllers
            say_controllers()
            dashboard.begin(first, sample_rate_hz=model.spec.sample_rate_hz, input_rate_hz=rate_hz)
            _show(dashboard, terminal, open_it=not options.no_browser)

        return live_command(options, terminal, observers=[dashboard], opened=opened)


def _clocks(request: LiveRequest) -> dict[str, object]:
    return {"link": request.link, "in": request.clock_in or request.control_in or "", "out": request.clock_out or ""}


def web_command(
    *,
    what: Annotated[
        list[Path] | None,
        typer.Argument(help="Session folders, partner files, or folders of them; default: this folder.", show_default=False),
    ] = None,
    partner: MovedPartner = None,
    uploads: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what is dropped on the page, and for the partners that learn it; default: a new one beside what is"
            " shown, and beyond this machine none."
        ),
    ] = None,
    web_port: WebPort = 0,
    web_host: WebHost = LOOPBACK,
    no_browser: NoBrowser = False,
    terminal: Terminal,
) -> None:
    """Show sessions and partners in the browser until Ctrl-C. Raises `MusicHalError` for what is neither."""
    from musichal.commands.desk import Desk, Uploads  # it brings training along, which nobody who plays waits for

    named = list(what or [Path()])
    if uploads is not None and uploads.exists() and not uploads.is_dir():
        raise InputError(f"--uploads must be a folder, got {printable(uploads)}")
    place = WebPlace(host=web_host, port=web_port)

    def show(path: Path) -> Shown:
        return _session(path, partner, terminal) if path.is_dir() else _partner(path)

    with stop_signals() as stop, Dashboard(place=place) as dashboard:
        # Beyond this machine, only what is named.
        shelf = find_shelf(named, beside=place.is_local)
        first = named[0].resolve()
        only = first if len(named) == 1 and first in (*shelf.sessions, *shelf.partners) else None
        begin, rest = _NOTHING if only is None else show(only)
        near = first if first.is_dir() and not looks_like_session(first) else first.parent
        fresh = Uploads(near / f"musichal-{time.strftime('%Y-%m-%d')}", is_fresh=True) if place.is_local else None
        desk = dashboard.desk = Desk(dashboard, shelf, show, fresh if uploads is None else Uploads(uploads, is_fresh=False))
        dashboard.begin(begin, sample_rate_hz=1, input_rate_hz=1)
        desk.shown = only
        desk.say_shelf()
        _show(dashboard, terminal, open_it=not no_browser)
        dashboard.say_all(rest, stop)
        while not stop.wait(_LOOK_S) and dashboard.is_serving:
            pass
        desk.close()


def _session(folder: Path, partner: Path | None, terminal: Terminal) -> Shown:
    session = read_session(folder)
    settings = session.settings
    path = known_partner(settings, partner, terminal)
    model = None if path is None else load_partner(path)
    names = names_of(session.decisions, model)
    known = _recordings(model) if model is not None else []
    recordings = [*known, *({"name": name, "duration_s": 0.0} for name in names[len(known) :])]
    files = {"session": path_text(folder.resolve())}
    if path is not None:
        files["partner"] = path_text(path.resolve())
    first = hello(
        settings.partner,
        recordings=recordings,
        live=False,
        title=f"{folder.name}: {settings.input_name}",
        duration_s=session.duration_s,
        recovered=list(session.recovered),
        files=files,
    )
    return first, session_messages(session, names, settings.stream_rate_hz)


def _partner(path: Path) -> Shown:
    model = load_partner(path)
    first = hello(
        PartnerSettings(),
        recordings=_recordings(model),
        live=False,
        partner=True,
        title=path.name,
        duration_s=0.0,
        files={"partner": path_text(path.resolve())},
    )
    return first, _learned(model)


def _learned(model: PartnerModel) -> Iterator[dict[str, Any]]:
    yield {"k": "overview", **overview(model, partner_stats(model)).to_dict()}


def _recordings(model: PartnerModel) -> list[dict[str, object]]:
    return [{"name": recording.name, "duration_s": round(recording.duration_s, 3)} for recording in model.recordings]


def _show(dashboard: Dashboard, terminal: Terminal, *, open_it: bool) -> None:
    place = dashboard.place
    lines = [("The dashboard", dashboard.address), ("To look at only, for a projector", dashboard.stage_address)]
    if place.is_everywhere and (own := place.own_address()):
        own = f"[{own}]" if ":" in own else own
        for what, address in [("From other machines", dashboard.address), ("There, to look at only", dashboard.stage_address)]:
            parts = urlsplit(address)
            lines.append((what, urlunsplit(parts._replace(netloc=f"{own}:{parts.port}"))))
    for what, address in lines:
        terminal.err.print(f"{what}: {address}", highlight=False, soft_wrap=True)
    if not place.is_local:
        terminal.warn(f"it is served at {place.host}: whoever has the address can play with")
    if open_it and terminal.err.is_terminal:
        # A browser may take seconds to start.
        threading.Thread(target=open_browser, args=(dashboard.address,), daemon=True).start()


def open_browser(address: str) -> None:
    """Open an address in the browser, by a file of this user's: every user of the machine can read a browser's arguments."""
    with contextlib.suppress(webbrowser.Error, OSError):
        # At home: a browser in a sandbox does not see the folder for temporary files.
        handle, name = tempfile.mkstemp(prefix="musichal-", suffix=".html", dir=Path.home())
        atexit.register(Path(name).unlink, missing_ok=True)
        with open(handle, "w", encoding="utf-8") as page:  # noqa: PTH123 - open already
            page.write(f'<meta http-equiv="refresh" content="0;url={address}">')
        webbrowser.open(Path(name).as_uri())
