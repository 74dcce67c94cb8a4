"""A page in the browser that labels clips with a kept model. Only this machine can reach it."""

from __future__ import annotations

import atexit
import html
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from cemobam_core.errors import InputError
from cemobam_core.extras import require
from cemobam_core.files import temporary_folder
from study.output.labelling import Clip, Labelled, Labeller, Linked
from study.output.listener import listener

# Gradio reads its settings when it is imported. What is uploaded or recorded is gone when the page is stopped.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
_uploads = ExitStack()
atexit.register(_uploads.close)
os.environ["GRADIO_TEMP_DIR"] = str(_uploads.enter_context(temporary_folder()))
try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ModuleNotFoundError:
    require("page", "study.output.page")
    raise

_HOST = "127.0.0.1"
_ONLY_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""Content security policy: the browser asks no other host for anything."""

_CSS = """
.gradio-container {width: min(1100px, 100%) !important; max-width: none !important; margin: 0 auto}
#problem p {color: #b42318; background: #fef3f2; border: 1px solid #fda29b; border-radius: 8px; padding: 10px 14px}
#linked table {border-collapse: collapse; width: 100%; font-size: 14px; margin: 4px 0 20px; border: 0}
#linked th, #linked td {border: 0; border-bottom: 1px solid #8884; padding: 5px 20px 5px 0; vertical-align: top}
#linked tr, #linked thead {border: 0}
#linked, #problem, #linked > *, #problem > * {padding: 0 !important}
#linked th {font-weight: 600; text-align: left}
#linked td {text-align: left}
#linked .number {text-align: right; font-variant-numeric: tabular-nums}
#linked .id {font-family: ui-monospace, monospace; font-size: 12px; overflow-wrap: anywhere}
#linked h3 {margin: 0; font-size: 15px}
#linked p {margin: 0 0 14px}
"""


def page(labeller: Labeller, problem: str = "") -> gr.Blocks:
    """Return the page.

    Args:
        labeller: The model with its encoders.
        problem: An error that is shown from the start.
    """
    needs_text = "text" in labeller.kept.modalities
    blocks: gr.Blocks
    with gr.Blocks(title="Label a clip", analytics_enabled=False) as blocks:
        gr.Markdown(f"# Label a clip\n{_about(labeller)}")
        told = gr.HTML(_paragraph(problem), visible=bool(problem), elem_id="problem")
        with gr.Row():
            with gr.Column():
                audio = gr.Audio(
                    label="Clip",
                    sources=["upload", "microphone"],
                    type="filepath",
                    visible=labeller.hears,
                    buttons=[],  # gradio's own would share the clip on the internet
                )
                text = gr.Textbox(
                    label="Transcript",
                    lines=3,
                    visible=needs_text,
                    elem_id="transcript",
                    placeholder=f"Leave it empty, and {labeller.asr} writes it." if labeller.asr else "What is said?",
                )
                button = gr.Button("Label it", variant="primary", elem_id="label-it")
            with gr.Column():
                bars = gr.Label(label="Label", num_top_classes=labeller.kept.sizes.num_classes, elem_id="bars")
        linked = gr.HTML(elem_id="linked")

        def label(audio: str | None, text: str | None) -> tuple[gr.HTML, dict[str, float] | None, str]:
            """Return the problem, the probabilities, and the transcript that was heard with the neighbours."""
            given = " ".join((text or "").split())
            clip = Clip(id="the clip", audio=Path(audio) if audio else None, text=given)
            try:
                labelled, _, _ = labeller.label(clip)
            except InputError as error:
                # The browser's copy of the file has a long name that the user has never seen.
                line = str(error).replace(audio, Path(audio).name) if audio else str(error)
                return gr.HTML(_paragraph(" ".join(line.split())), visible=True), None, ""
            heard = "" if given or not labeller.asr else f"{labeller.asr} heard: “{labelled.clip.text}”"
            return gr.HTML("", visible=False), labelled.probabilities, _paragraph(heard) + _tables(labelled)

        def clear() -> tuple[gr.HTML, None, str]:
            return gr.HTML("", visible=False), None, ""

        shown = [told, bars, linked]
        button.click(label, [audio, text], shown, api_visibility="private")
        audio.input(clear, None, shown, api_visibility="private")  # the label of the clip before
    return blocks


def serve(labeller: Labeller, port: int | None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        labeller: The model with its encoders.
        port: The port. `None` for the first free one from 8080.

    Raises:
        InputError: The port is taken.
    """
    listening = listener(_HOST, port)
    problem = ""
    try:
        labeller.load()  # now, because the first label should not wait for it
    except InputError as error:
        problem = " ".join(str(error).split())
    server = uvicorn.Server(
        uvicorn.Config(application(page(labeller, problem)), log_level="critical", timeout_graceful_shutdown=1)
    )
    print(f"The page is at http://{_HOST}:{listening.getsockname()[1]}/  (press Ctrl-C to stop it)", flush=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def application(blocks: gr.Blocks) -> FastAPI:
    """Return the page as a web application that only answers requests to this machine."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])

    @app.middleware("http")
    async def only_here(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers["Content-Security-Policy"] = _ONLY_HERE
        return response

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    mounted: FastAPI = gr.mount_gradio_app(
        app, blocks, path="/", theme=theme, css=_CSS, footer_links=[], ssr_mode=False, pwa=False, show_error=False
    )
    return mounted


def _about(labeller: Labeller) -> str:
    kept = labeller.kept
    names = ", ".join(kept.class_names)
    return f"Classes: {names}. Model: `{kept.folder.name}`. Nothing leaves this machine."


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def _tables(labelled: Labelled) -> str:
    return "".join(_table(modality, linked) for modality, linked in labelled.linked.items())


def _table(modality: str, linked: Sequence[Linked]) -> str:
    title = f"<h3>Nearest training utterances by {modality}</h3>"
    if not linked:
        return f"{title}<p>No training utterance is linked to this clip.</p>"
    texts = any(one.text for one in linked)
    head = f"<th>label</th><th class=number>similarity</th>{'<th>transcript</th>' * texts}<th>utterance</th>"
    rows = (
        f"<td>{html.escape(one.label)}</td><td class=number>{one.similarity:.3f}</td>"
        f"{f'<td>{html.escape(one.text)}</td>' * texts}<td class=id>{html.escape(one.id)}</td>"
        for one in linked
    )
    return f"{title}<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
