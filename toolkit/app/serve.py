"""The page of a model, served on this machine, or by a Space."""

import os
import tempfile
from typing import Any

from toolkit.app.asked import MOST_BYTES, Asked, open_asked
from toolkit.errors import UserError
from toolkit.report.page import TEMPLATES

HOST = "127.0.0.1"


def serve(model: str, port: int) -> None:
    """Until Ctrl-C, for browsers of this machine alone. What is uploaded lies in a folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="toolkit-app-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        blocks = page_of(open_asked(model))
        print(f"{model}: http://{HOST}:{port} (Ctrl-C ends)", flush=True)
        try:
            blocks.launch(server_name=HOST, server_port=port, **launching())
        except OSError as error:
            raise UserError(f"port {port} cannot be listened on ({error}). Give another: --port {port + 1}.") from None


def serve_space(model: str) -> None:
    """As a Space of huggingface.co starts it, which says itself where to listen."""
    page_of(open_asked(model)).launch(**launching())


def page_of(asked: Asked) -> Any:
    """`interface`; UserError where gradio is not installed."""
    try:
        from toolkit.app.interface import interface
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the page needs gradio: pip install 'pretraining-toolkit[app]'.") from None
    return interface(asked)


def launching() -> dict[str, Any]:
    """How it is launched, wherever it is: never shared through others' servers, letters of this machine alone, no
    request of it but to where it came from.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    letters = ["system-ui", "sans-serif"]
    theme = gr.themes.Base(font=letters, font_mono=["ui-monospace", "monospace"], primary_hue="blue").set(
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")
    css = (TEMPLATES / "app.css").read_text(encoding="utf-8")
    return {"share": False, "ssr_mode": False, "footer_links": [], "run_history": False, "max_file_size": MOST_BYTES,
            "theme": theme, "css": css, "quiet": True, "pwa": False, "mcp_server": False, "enable_monitoring": False,
            "app_kwargs": {"middleware": [Middleware(OnlyFromHere)]}}


class OnlyFromHere:
    """Tells browsers to fetch nothing from elsewhere, and to send nothing there, whatever a page of gradio's asks."""

    POLICY = (b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
              b"img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; form-action 'self'")

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", self.POLICY)]
            await send(message)

        await self.app(scope, receive, with_policy)
