"""`musichal inspect`: what a partner learned."""

from pathlib import Path

from musichal.atomic import printable
from musichal.commands.outcome import Voice
from musichal.commands.outputs import check_outputs
from musichal.memory.partner_file import load_partner
from musichal.pictures.canvas import picture_format, save_figure
from musichal.pictures.partner import draw_partner
from musichal.verify.figures import figures_text, partner_figures


def inspect_command(partner: Path, *, picture: Path | None, voice: Voice) -> None:
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
