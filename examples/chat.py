"""A chat room in one page: WebSockets that send to each other.

    python examples/chat.py

Open http://127.0.0.1:8000/ in two windows.
"""

from __future__ import annotations

from httpy import App, HTMLResponse, WebSocket

app = App(title="Chat")
members: set[WebSocket] = set()

PAGE = """<!doctype html>
<title>Chat</title>
<h1>Chat</h1>
<ul id="said"></ul>
<form><input id="text" autofocus autocomplete="off"><button>Say</button></form>
<script>
  const name = prompt("Who are you?") || "somebody"
  const socket = new WebSocket(`ws://${location.host}/chat?name=${encodeURIComponent(name)}`)
  socket.onmessage = (event) => {
    const line = document.createElement("li")
    const {who, what} = JSON.parse(event.data)
    line.textContent = `${who}: ${what}`
    said.append(line)
  }
  socket.onclose = (event) => said.append(`closed: ${event.code} ${event.reason}`)
  document.forms[0].onsubmit = (event) => {
    event.preventDefault()
    socket.send(text.value)
    text.value = ""
  }
</script>"""


@app.get("/")
async def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(PAGE)


# Who reads too slowly loses messages, and holds nobody up. Only this page may open it.
@app.websocket("/chat", origins=["same"], when_full="drop")
async def chat(websocket: WebSocket, name: str = "somebody") -> None:
    """Somebody who talks, for as long as they are there."""
    await websocket.accept()
    members.add(websocket)
    try:
        await say("*", f"{name} came")
        async for text in websocket:
            await say(name, str(text))
    finally:
        members.discard(websocket)
        await say("*", f"{name} left")


async def say(who: str, what: str) -> None:
    """Tells everybody."""
    for member in list(members):
        if member.connection_state == "open":
            await member.send_json({"who": who, "what": what})


if __name__ == "__main__":
    app.run()
