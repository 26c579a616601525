"""`musichal inspect`: what a partner learned."""

from pathlib import Path

from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.evaluate.partner_stats import figures_text, partner_figures
from musichal.memory.partner_file import load_partner
from musichal.plots.canvas import picture_format, save_figure
from musichal.plots.partner import draw_partner
from musichal.text import printable


def inspect_command(partner: Path, *, picture: Path | None, voice: Terminal) -> None:
    """Show what a partner learned, as tables, JSON and a picture."""
    if picture is not None:
        picture_format(picture)
        check_outputs([picture], inputs=[partner])
    model = load_partner(partner)
    figures = partner_figures(model)
    voice.result({"partner": str(partner), **figures.to_dict()})
    voice.show(figures_text(figures))
    if picture is not None:
        with voice.progress("Drawing"):
            save_figure(draw_partner(model), picture)
        voice.say(f"Wrote {printable(picture)}")
